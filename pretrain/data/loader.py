"""Batches as tensors, made ahead: one accumulation window per optimizer step for training, equal shares for evaluation."""

import queue
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import torch

from pretrain.data.batches import Batch, Batches
from pretrain.data.masking import IGNORED_LABEL
from pretrain.data.micro_batches import micro_batches

Tensors = dict[str, torch.Tensor]
Window = list[Tensors]

_SAMPLES_PER_CALL = 1024
_POLL_SECONDS = 0.1
_UNTARGETED = {"masked_labels": IGNORED_LABEL, "replaced_by_mask": False, "next_sentence_label": IGNORED_LABEL, "labels": IGNORED_LABEL}


def windows(
    batches: Batches, first_position: int, global_batch_size: int, micro_batch_size: int, rank: int, world_size: int, prefetch: int = 2
) -> "Windows":
    """The accumulation windows of one rank, one per optimizer step, without end.

    Step s covers positions [first_position + s G, first_position + (s + 1) G) with G = global_batch_size; its micro-step a on rank r
    takes the micro_batch_size positions from (a * world_size + r) * micro_batch_size on.

    Args:
        batches: where the samples come from.
        prefetch: windows made ahead in a background thread, besides the one being made.

    Returns:
        An iterator over windows: lists of G / (micro_batch_size * world_size) micro-batches of CPU tensors, pinned where there is CUDA.
        An exception in the thread is raised by the iterator. `close()`, or dropping the iterator, ends the thread.
    """
    num_micro_batches, remainder = divmod(global_batch_size, micro_batch_size * world_size)
    if remainder:
        raise ValueError(f"global batch {global_batch_size} is not a multiple of micro-batch {micro_batch_size} x {world_size} ranks")
    starts = (np.arange(num_micro_batches, dtype=np.int64) * world_size + rank) * micro_batch_size

    def make() -> Iterator[Window]:
        position = first_position
        while True:
            yield _window(batches, position + starts, micro_batch_size)
            position += global_batch_size

    return Windows(make(), prefetch)


class Windows(Iterator[Window]):
    """Runs an endless iterator of windows in a background thread, a few windows ahead."""

    def __init__(self, source: Iterator[Window], prefetch: int) -> None:
        self._ready: queue.Queue[Window | BaseException] = queue.Queue(maxsize=prefetch)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=_produce, args=(source, self._ready, self._stop), name="windows", daemon=True)
        self._stop_when_dropped = weakref.finalize(self, self._stop.set)
        self._failure: BaseException | None = None
        self._thread.start()

    def __next__(self) -> Window:
        if self._failure is not None:
            raise self._failure
        if self._stop.is_set():
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._failure = item
            raise item
        return item

    def close(self) -> None:
        """End the background thread and wait for it."""
        self._stop.set()
        self._thread.join()


def evaluation_batches(batches: Batches, num_samples: int, micro_batch_size: int, rank: int, world_size: int) -> Iterator[Tensors]:
    """This rank's share of the first min(num_samples, num_anchors) samples.

    Every rank gets the same number of micro-batches of the same shape. What is missing at the end is filled up with samples that carry
    no target: labels -100, replaced_by_mask False.
    """
    total = min(num_samples, batches.num_anchors)
    for start in range(rank * micro_batch_size, _round_up(total, micro_batch_size * world_size), micro_batch_size * world_size):
        positions = start + np.arange(micro_batch_size, dtype=np.int64)
        fields = batches.batch(np.minimum(positions, total - 1))
        for name, nothing in _UNTARGETED.items():
            if name in fields:
                fields[name][positions >= total] = nothing
        yield from map(_tensors, micro_batches(fields, micro_batch_size))


def _window(batches: Batches, starts: np.ndarray, micro_batch_size: int) -> Window:
    """The micro-batches that begin at `starts`, made in as few calls as memory's locality wants, then sliced."""
    micro_batches_per_call = max(1, _SAMPLES_PER_CALL // micro_batch_size)
    window: Window = []
    for first in range(0, len(starts), micro_batches_per_call):
        group = starts[first : first + micro_batches_per_call]
        fields = batches.batch((group[:, None] + np.arange(micro_batch_size)).ravel())
        window.extend(map(_tensors, micro_batches(fields, micro_batch_size)))
    return window


def _tensors(fields: Batch) -> Tensors:
    tensors = {name: torch.from_numpy(array) for name, array in fields.items()}
    return {name: tensor.pin_memory() for name, tensor in tensors.items()} if torch.cuda.is_available() else tensors


def _produce(source: Iterator[Window], ready: "queue.Queue[Window | BaseException]", stop: threading.Event) -> None:
    try:
        for window in source:
            if not _put(window, ready, stop):
                return
    except BaseException as error:  # whatever it is, the consumer has to hear of it
        _put(error, ready, stop)


def _put(item: "Window | BaseException", ready: "queue.Queue[Window | BaseException]", stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
