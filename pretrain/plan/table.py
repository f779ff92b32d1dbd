"""A plan for many ranks as aligned tables for a terminal, or as one line of CSV for each optimizer and stage, to the byte."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pretrain.config.schema import AUTO
from pretrain.plan.deepspeed import Zero
from pretrain.plan.many import Cell, ManyRanks

_GIB, _MIB = 2**30, 2**20

_MEMORY_TITLE = "memory of the rank that needs most, GiB; without what is in the host's memory the parts add up to the peak"
_MEMORY = ("stage", "optimizer", "weights", "gradients", "masters", "state", "buckets", "activations", "transient", "peak", "in host")
_COMMUNICATION_TITLE = "payload of one optimizer step, GiB (reductions, the optimizer's own: MiB), and what one rank sends for it, GiB"
_COMMUNICATION = ("stage", "optimizer", "gradients", "weights", "reductions", "of gradients", "calls", "sent")
_TIME_TITLE = "time of one optimizer step, ms"
_TIME = ("stage", "optimizer", "compute", "communication", "reductions", "update", "overlapped", "serial")


def text(plan: ManyRanks) -> str:
    """Head and three tables."""
    blocks = [
        "\n".join(f"{name:>10}  {line}" for name, line in _head(plan)),
        _table(_MEMORY_TITLE, _MEMORY, map(_memory_row, plan.cells)),
        _table(_COMMUNICATION_TITLE, _COMMUNICATION, map(_communication_row, plan.cells)),
        _table(_TIME_TITLE, _TIME, map(_time_row, plan.cells)),
    ]
    return "\n\n".join(blocks)


def as_csv(plan: ManyRanks) -> str:
    """All figures, exact."""
    rows = [_flat(cell) for cell in plan.cells]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _head(plan: ManyRanks) -> Iterator[tuple[str, str]]:
    config, batch, gpu = plan.config, plan.batch, plan.hardware
    model, train = config.model, config.train
    yield "model", f"{model.name}, {plan.sizes.parameters:,} parameters, vocabulary {plan.sizes.vocabulary:,}, {config.objective.kind}"
    yield "ranks", f"{batch.world_size}, {gpu.gpus_per_node} to a node"
    yield (
        "batch",
        f"micro {batch.micro_batch_size} x accumulation {batch.gradient_accumulation_steps} x ranks {batch.world_size} = global "
        f"{batch.global_batch_size:,}; sequences of {config.data.max_seq_length}, all full",
    )
    if batch.micro_batch_size != train.micro_batch_size:
        given = "a run finds what fits" if train.micro_batch_size == AUTO else "does not divide the global batch on so many ranks"
        yield "", f"(train.micro_batch_size={train.micro_batch_size}: {given}; {batch.micro_batch_size} is taken here)"
    yield "precision", f"{train.precision}, gradients travel in fp32{', offload to the host' if config.zero.offload == 'cpu' else ''}"
    if any(cell.time.update_seconds is None for cell in plan.cells):
        yield "", "(with offload the host makes the update: its time, and a step's, are not planned)"
    if plan.stage_0_is_a_stand_in:
        yield "", f"(stage 0 does not run in {train.precision} with fp32 accumulation; it is planned with train.grad_accum_dtype=model)"
    if train.precision == "fp16":
        yield "", "(fp16 is planned like bf16 at ZeRO-2 and 3; its loss scale adds nothing)"
    unknown = [name for name in config.zero.extra if name not in Zero.__dataclass_fields__]
    if unknown:
        yield "", f"(what zero.extra changes by {', '.join(unknown)} is not planned)"
    compiled = f"layers compiled at ZeRO stage {', '.join(map(str, plan.compiled))}" if plan.compiled else "no torch.compile"
    yield "layers", f"{'activation checkpointing' if train.activation_checkpointing else 'all activations kept'}; {compiled}"
    yield (
        "assumed",
        f"per GPU {gpu.tflops(train.precision):g} TFLOP/s at {gpu.mfu:.0%} utilisation; {gpu.intra_node_gbps:g} GB/s within a node, "
        f"{gpu.network_gbps:g} GB/s between nodes; memory {gpu.memory_tbps:g} TB/s; rings, without latency",
    )


def _memory_row(cell: Cell) -> list[str]:
    memory, held = cell.memory, cell.memory.held
    parts = (held.weights_bytes, held.grads_bytes, held.masters_bytes, held.optimizer_bytes, held.communication_bytes)
    return _row(cell, *map(_gib, (*parts, memory.activations_bytes, memory.transient_bytes, memory.peak_bytes, held.host_bytes)))


def _communication_row(cell: Cell) -> list[str]:
    sent = cell.communication
    gradients, weights = map(_gib, (sent.gradients_payload_bytes, sent.weights_payload_bytes))
    reductions, share = f"{sent.optimizer_payload_bytes / _MIB:.2f}", f"{100 * sent.optimizer_share:.4f} %"
    return _row(cell, gradients, weights, reductions, share, str(sent.optimizer_calls), _gib(sent.sent_bytes))


def _time_row(cell: Cell) -> list[str]:
    time = cell.time
    parts = (time.compute_seconds, time.communication_seconds, time.reductions_seconds, time.update_seconds)
    with_sums = (*parts, time.overlapped_seconds, time.serial_seconds)
    return _row(cell, *("-" if seconds is None else f"{1000 * seconds:.2f}" for seconds in with_sums))


def _row(cell: Cell, *values: str) -> list[str]:
    return [str(cell.stage), cell.optimizer, *values]


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f}"


def _table(title: str, names: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [list(names), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([title, *("  ".join(_aligned(line, widths)).rstrip() for line in lines)])


def _aligned(line: list[str], widths: list[int]) -> list[str]:
    """The optimizer's name begins its column, numbers end theirs."""
    return [value.ljust(width) if place == 1 else value.rjust(width) for place, (value, width) in enumerate(zip(line, widths))]


def _flat(cell: Cell) -> dict[str, object]:
    memory = asdict(cell.memory)
    share = {"optimizer_share_of_gradients": cell.communication.optimizer_share}
    ends = {"overlapped_seconds": cell.time.overlapped_seconds, "serial_seconds": cell.time.serial_seconds}
    return {
        "stage": cell.stage,
        "optimizer": cell.optimizer,
        **memory.pop("held"),
        **memory,
        **asdict(cell.communication),
        **share,
        **asdict(cell.time),
        **ends,
    }
