"""Where the time of one step goes, part by part, without waiting for the device before the step is over."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

OTHER = "other"

_COLLECTIVES = (
    "all_gather",
    "all_gather_base",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all_single",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
)
"""Of tensors: those of objects belong to checkpoints, which a thread of its own sends."""

Parts = Callable[[str], AbstractContextManager[None]]


def untimed(part: str) -> AbstractContextManager[None]:
    """For the steps of which nobody asks where their time goes."""
    return nullcontext()


class Timeline:
    """One step, from its making to `end`: every moment of it belongs to the innermost part that was open then, else to `other`.

    On a GPU time is what passes on the stream on which the timeline was made, between events that are recorded where a part begins and
    ends, so that a part is what the device did, or waited for, and not when the host asked for it. Elsewhere it is the host's clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock: _HostClock | _GpuClock = _GpuClock(device) if device.type == "cuda" else _HostClock()
        self._open = [OTHER]
        self._marks: list[tuple[str | None, Any]] = [(OTHER, self._clock.now())]
        self._ended = False

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """The block belongs to `part`, but for the parts within it."""
        if self._ended or not self._clock.applies():
            yield
            return
        self._open.append(part)
        self._mark(part)
        try:
            yield
        finally:
            self._open.pop()
            self._mark(self._open[-1])

    def end(self) -> None:
        """The step is over; whatever is still running then belongs to no part."""
        self._mark(None)
        self._ended = True

    def seconds(self) -> dict[str, float]:
        """Seconds of each part that there was; together they are the whole step. Waits for the device."""
        self._clock.wait(self._marks[-1][1])
        found = {OTHER: 0.0}
        for (part, begun), (_, ended) in zip(self._marks, self._marks[1:]):
            found[part] = found.get(part, 0.0) + self._clock.seconds(begun, ended)
        return found

    def _mark(self, part: str | None) -> None:
        if not self._ended:
            self._marks.append((part, self._clock.now()))


class _HostClock:
    def applies(self) -> bool:
        return True

    def now(self) -> float:
        return time.perf_counter()

    def wait(self, mark: float) -> None:
        pass

    def seconds(self, begun: float, ended: float) -> float:
        return ended - begun


class _GpuClock:
    """Events on the stream that is current now. What runs on other streams at the same time does not lengthen the step."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)

    def applies(self) -> bool:
        return torch.cuda.current_stream(self._stream.device) == self._stream

    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        mark.synchronize()

    def seconds(self, begun: torch.cuda.Event, ended: torch.cuda.Event) -> float:
        return begun.elapsed_time(ended) / 1000


@contextmanager
def collectives_timed(timeline: Timeline, backend: Any) -> Iterator[None]:
    """Within the block the collectives of tensors, those of `backend` (DeepSpeed's) and all others that are called as
    `torch.distributed.<name>`, are the part `communication`: from the call to its return and, of asynchronous ones, while somebody
    waits for them. On a GPU, only those that are called, or waited for, on the timeline's stream: what overlaps with the backward pass
    on a stream of its own (DeepSpeed's `overlap_comm`, ZeRO-3's prefetching) is hidden by it, and if the pass has to wait for that
    stream, this is the pass's time.
    """
    with ExitStack() as patches:
        for owner in (dist, backend):
            for name in _COLLECTIVES:
                if function := getattr(owner, name, None):
                    patches.enter_context(patch.object(owner, name, _timed(function, timeline)))
        yield


def _timed(function: Callable[..., Any], timeline: Timeline) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with timeline("communication"):
            work = function(*args, **kwargs)
        return _TimedWork(work, timeline) if hasattr(work, "wait") else work

    return call


class _TimedWork:
    """The handle of an asynchronous collective, whose `wait` is timed too."""

    def __init__(self, work: Any, timeline: Timeline) -> None:
        self._work, self._timeline = work, timeline

    def wait(self, *args: Any) -> Any:
        with self._timeline("communication"):
            return self._work.wait(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
