"""Table 1 of the CAME paper for BERT-Large: memory of weights, gradients and optimizer state by optimizer, predicted and measured.

    python scripts/bench_memory_table.py [--skip-measuring] [--output scripts/bench_results/DATE_cpu_memory_table.md]

Weights, gradients and state are predicted from shapes (`pretrain.plan`, `came.memory`), in fp32 on one rank without ZeRO. They are then
made in memory, one optimizer after the other: one step with it, and the bytes of the tensors that are there. That takes 6 GB and two
minutes of CPU time. Prints Markdown, with the differences between optimizers beside those of Luo et al. (ACL 2023).
"""

import gc
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import benchmark
import torch
from torch import Tensor, nn

from came.memory import state_bytes
from pretrain.config.compose import compose
from pretrain.config.schema import AdafactorConfig, AdamWConfig, CameConfig, Config, LambConfig, OptimizerConfig, Sm3Config
from pretrain.model.build import Vocabulary, build_model
from pretrain.optim import build_optimizer
from pretrain.plan.deepspeed import zero_of
from pretrain.plan.memory import held
from pretrain.plan.sizes import Sizes, model_without_storage, sizes_of

SETTINGS = ["+experiment=bert_32k", "data.paths=[corpus.txt]", "zero=stage0", "train.precision=fp32"]
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "AdamW": AdamWConfig(),
    "LAMB": LambConfig(),
    "SM3": Sm3Config(),
    "CAME": CameConfig(),
    "Adafactor, with momentum": AdafactorConfig(beta1=0.9),
    "Adafactor, without": AdafactorConfig(),
    "SM3, without momentum": Sm3Config(momentum=0.0),
}
PAPER = {"AdamW": 8.24, "LAMB": 8.23, "SM3": 7.44, "CAME": 7.07, "Adafactor, with momentum": 7.00}
"""GB per GPU (Luo et al., Table 1); theirs is Adam, and which of the two Adafactors they had is what the differences tell."""


@dataclass(frozen=True)
class Row:
    """Bytes with one optimizer; measured is None where nothing was."""

    weights: int
    gradients: int
    state: int
    measured_weights: int | None = None
    measured_gradients: int | None = None
    measured_state: int | None = None


def predicted(config: Config, sizes: Sizes, settings: OptimizerConfig) -> Row:
    """Without any storage."""
    rule = build_optimizer(settings, model_without_storage(config, Vocabulary(sizes.vocabulary))).rule
    found = held(sizes, rule, zero_of(config), world_size=1, rank=0)
    (state,) = state_bytes(rule, sizes.groups, world_size=1, stage=0)
    assert state == found.optimizer_bytes
    return Row(found.weights_bytes - sizes.buffers_bytes, found.grads_bytes, state)


def measured(row: Row, model: nn.Module, settings: OptimizerConfig) -> Row:
    """After one step on real tensors. The state is freed again, the gradients stay."""
    optimizer = build_optimizer(settings, model)
    optimizer.step()
    state = size_of(value for kept in optimizer.state.values() for value in kept.values() if torch.is_tensor(value))
    gradients = size_of(param.grad for param in model.parameters() if param.grad is not None)
    return Row(row.weights, row.gradients, row.state, size_of(model.parameters()), gradients, state)


def size_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def table(rows: dict[str, Row]) -> list[str]:
    lines = [
        "| optimizer | weights | gradients | state, predicted | state, measured | together | state, of AdamW's | paper, whole GPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        found = "" if row.measured_state is None else f"{row.measured_state:,} ({row.measured_state / 1e9:.3f} GB)"
        together = (row.weights + row.gradients + row.state) / 1e9
        lines.append(
            f"| {name} | {row.weights:,} ({row.weights / 1e9:.3f} GB) | {row.gradients:,} ({row.gradients / 1e9:.3f} GB) | "
            f"{row.state:,} ({row.state / 1e9:.3f} GB) | {found} | {together:.3f} GB | {row.state / rows['AdamW'].state:.4f} | "
            f"{f'{PAPER[name]:.2f} GB' if name in PAPER else ''} |"
        )
    return lines


def differences(rows: dict[str, Row]) -> list[str]:
    """AdamW less each of the others: in the state, and in the paper's figures for the whole GPU."""
    lines = ["| AdamW minus | bytes of state | GB (10^9) | GiB (2^30) | paper, GB |", "|---|---|---|---|---|"]
    for name, row in list(rows.items())[1:]:
        saved = rows["AdamW"].state - row.state
        paper = f"{PAPER['AdamW'] - PAPER[name]:.2f}" if name in PAPER else ""
        lines.append(f"| {name} | {saved:,} | {saved / 1e9:.3f} | {saved / 2**30:.3f} | {paper} |")
    return lines


def report(rows: dict[str, Row], sizes: Sizes) -> str:
    where = f"{date.today().isoformat()}, {benchmark.processor()}, Python {platform.python_version()}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    told = [row for row in rows.values() if row.measured_state is not None]
    agree = all(
        (row.weights, row.gradients, row.state) == (row.measured_weights, row.measured_gradients, row.measured_state) for row in told
    )
    said = "nothing was measured"
    if told:
        said = f"measured after one step on the CPU; weights, gradients and state are {'' if agree else 'NOT '}the predicted bytes"
    lines = [
        f"# Memory by optimizer: BERT-Large, {sizes.parameters:,} parameters, vocabulary {sizes.vocabulary:,}",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{where}, {versions}. fp32, one rank, no ZeRO; {said}. GB are 10^9 bytes.",
        "",
        *table(rows),
        "",
        *differences(rows),
        "",
        *notes(rows, sizes.parameters),
    ]
    return "\n".join(lines) + "\n"


def notes(rows: dict[str, Row], parameters: int) -> list[str]:
    """What the comparison with the paper can say and what it cannot."""
    saved = {name: rows["AdamW"].state - row.state for name, row in rows.items()}
    second_factors = rows["CAME"].state - rows["Adafactor, with momentum"].state

    def both(saved_bytes: int) -> str:
        return f"{saved_bytes / 2**30:.3f} GiB ({saved_bytes / 1e9:.3f} GB)"

    return [
        "- The paper gives what a whole GPU holds (weights, gradients, state, activations, buffers) in GB, without saying whether these are"
        " 10^9 or 2^30 bytes, nor how precise each part is kept. Its figures themselves cannot be compared with ours; its differences"
        " between optimizers can, as far as everything but the state is the same.",
        "- Adam keeps 8 bytes per parameter. An optimizer with momentum and factors keeps 4 and next to nothing else, so that the"
        f" difference is 4 bytes x {parameters:,} = {both(4 * parameters)} less the factors. Over 8 ranks of ZeRO it would be an eighth: in"
        " the paper each GPU held the whole state.",
        f"- Adam minus Adafactor, 1.24 in the paper, is {both(saved['Adafactor, with momentum'])} with momentum and"
        f" {both(saved['Adafactor, without'])} without: the paper's Adafactor had momentum, and 1.24 fits GiB. (The harness's own default"
        " for Adafactor is without, as in its paper.)",
        f"- Adam minus CAME, 1.17 in the paper, is {both(saved['CAME'])}. CAME's second pair of factors takes"
        f" {second_factors / 1e6:.1f} MB, not the 70 MB between the paper's CAME and Adafactor: that cannot be state."
        " Temporaries of the update, or an allocator's rounding, could be it; this is a guess.",
        f"- Adam minus SM3, 0.80 in the paper, is {both(saved['SM3'])} with momentum and {both(saved['SM3, without momentum'])} without."
        " Neither gives 0.80: that implementation held more than SM3's state.",
        "- LAMB keeps exactly what Adam keeps; the paper's 8.23 and 8.24 agree with that.",
    ]


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--skip-measuring", action="store_true", help="predict only: needs no memory")
    arguments = parser.parse_args()
    config = compose(SETTINGS)
    vocabulary = Vocabulary(30_522)
    sizes = sizes_of(model_without_storage(config, vocabulary), vocabulary)
    rows = {name: predicted(config, sizes, settings) for name, settings in OPTIMIZERS.items()}
    if not arguments.skip_measuring:
        model = build_model(config, vocabulary)
        for param in model.parameters():
            param.grad = torch.full_like(param, 1e-3)
        for name, settings in OPTIMIZERS.items():
            rows[name] = measured(rows[name], model, settings)
            gc.collect()
    benchmark.publish(report(rows, sizes), arguments.output)


if __name__ == "__main__":
    main()
