"""What a run has logged of its memory beside what is planned for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrain.config.schema import Config
from pretrain.config.serialise import from_yaml
from pretrain.errors import UserError
from pretrain.metrics import read_metrics, standing
from pretrain.model.build import Vocabulary
from pretrain.plan.many import Cell, plan_ranks
from pretrain.run_folder import RunFolder

_PARTS = ("weights_bytes", "masters_bytes", "grads_bytes", "optimizer_bytes", "communication_bytes")


def compare(path: Path) -> str:
    """A table: bytes by part, the largest over the ranks and the steps logged since the run last began to train, measured and planned. The
    peak is compared where the run had a GPU: that of a process on a CPU holds Python and its libraries too. Raises UserError where there
    is nothing to compare."""
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise UserError(f"{path} is no run's folder (it has no config.yaml); give one, such as runs/NAME")
    config = from_yaml(folder.config.read_text(encoding="utf-8"))
    lines = standing(read_metrics(folder.metrics))
    with_memory = [place for place, line in enumerate(lines) if line["kind"] == "train" and "memory_weights_bytes" in line]
    planned = [place for place, line in enumerate(lines) if "plan" in line and place < max(with_memory, default=0)]
    if not planned:
        raise UserError(f"{path} has no train lines with the parts of its memory; give the folder of a run that has begun to train")
    measured = [lines[place] for place in with_memory if place > planned[-1]]
    cell = _plan(config, lines[planned[-1]]["plan"])
    rows = [("", "measured", "planned", "off")]
    for name, num_bytes in _planned(cell, on_gpu="memory_activations_bytes" in measured[-1]).items():
        rows.append(_row(name, max(line[f"memory_{name}"] for line in measured), num_bytes))
    return "\n".join(f"{name:<20}{found:>18}{planned:>18}{off:>12}".rstrip() for name, found, planned, off in rows)


def _plan(config: Config, made: dict[str, Any]) -> Cell:
    """For the ranks, vocabulary and micro-batch that the run says it has."""
    train = replace(config.train, micro_batch_size=made["micro_batch_size"])
    same = replace(config, train=train)
    (cell,) = plan_ranks(same, Vocabulary(made["vocabulary"]), made["ranks"], [config.optimizer.name], [config.zero.stage]).cells
    return cell


def _planned(cell: Cell, on_gpu: bool) -> dict[str, int]:
    parts = {name: getattr(cell.memory.held, name) for name in _PARTS}
    return parts | ({"peak_bytes": cell.memory.peak_bytes} if on_gpu else {})


def _row(name: str, measured: int, planned: int) -> tuple[str, str, str, str]:
    off = f"{100 * (planned / measured - 1):+.2f} %" if measured else ("0 %" if not planned else "-")
    return name, f"{measured:,}", f"{planned:,}", off
