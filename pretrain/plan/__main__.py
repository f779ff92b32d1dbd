"""`python -m pretrain.plan`: what a run would need on more GPUs than there are."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

_DESCRIPTION = """\
Print what a run would need on any number of GPUs, for every optimizer and ZeRO stage: memory of one rank by part, bytes sent per step,
the optimizer's own reductions beside them, and the time of a step by a roofline. Needs no data, network, GPU or weights.

examples:
  python -m pretrain.plan +experiment=gpt2_xl launch.num_processes=512
  python -m pretrain.plan +experiment=bert_32k launch.num_processes=8 --optimizer came,adamw --stage 1,2
  python -m pretrain.plan +experiment=gpt2_xl launch.num_processes=64 train.micro_batch_size=2 --format csv > plan.csv
  python -m pretrain.plan --run runs/bert_32k            compare the plan with the memory that a run has logged

The rates below are an H200's of a DGX H200; give those of your own machines.
"""
_OPTIMIZERS = ("came", "adamw", "lamb", "adafactor", "sm3")
_STAGES = ("0", "1", "2", "3")
_HARDWARE = {
    "peak_tflops": (None, "dense operations of the GPU in the run's precision, 10^12 per second (989 in bf16 and fp16, 67 in fp32)"),
    "mfu": (0.4, "share of the peak that forward and backward passes reach"),
    "gpus_per_node": (8, "GPUs of a node"),
    "intra_node_gbps": (450.0, "10^9 bytes per second and direction from a GPU to others of its node (NVLink)"),
    "network_gbps": (50.0, "the same to other nodes: one 400 Gb/s adapter per GPU"),
    "memory_tbps": (4.3, "10^12 bytes per second of the GPU's own memory"),
}
"""Fields of `pretrain.plan.roofline.Hardware` with its defaults, which says where they come from."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    rates = {name: value for name in _HARDWARE if (value := getattr(options, name)) is not None}
    for name, value in rates.items():
        if not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')}={value} is not valid; give a number above 0")
    if options.run is not None:
        if options.overrides:
            raise UserError(f"--run takes the settings of the run, but {options.overrides[0]} is given; leave one of them out")
        from pretrain.plan.comparison import compare

        print(compare(user_path(options.run, "--run ")))
        return 0
    from pretrain.config.compose import compose

    config = compose(options.overrides, options.config_dir)
    from pretrain.plan import table
    from pretrain.plan.many import plan_ranks
    from pretrain.plan.of_run import expected_vocabulary
    from pretrain.plan.roofline import Hardware
    from pretrain.world import find_world

    ranks = config.launch.num_processes or find_world(None).size
    stages = [int(stage) for stage in options.stage]
    plan = plan_ranks(config, expected_vocabulary(config), ranks, options.optimizer, stages, Hardware(**rates))
    print(table.as_csv(plan) if options.format == "csv" else table.text(plan))
    return 0


def _some_of(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        given = list(dict.fromkeys(text.split(",")))
        if not set(given) <= set(known):
            raise argparse.ArgumentTypeError(f"{text} is not valid; give one or more of {','.join(known)}")
        return given

    return read


def _parser() -> Parser:
    parser = Parser("python -m pretrain.plan", description=_DESCRIPTION)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings as of python -m pretrain; launch.num_processes: the ranks"
    )
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of your own YAML files, looked at before ours")
    parser.add_argument("--optimizer", type=_some_of(_OPTIMIZERS), default=_OPTIMIZERS, metavar="NAME,...", help="only these")
    parser.add_argument("--stage", type=_some_of(_STAGES), default=_STAGES, metavar="N,...", help="only these")
    parser.add_argument("--format", choices=("text", "csv"), default="text", help="tables, or all figures to the byte")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="compare with what the run in this folder has logged of its memory")
    for name, (default, meaning) in _HARDWARE.items():
        known = "" if default is None else f" (default {default:g})"
        number = float if default is None else type(default)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=number, default=default, metavar="X", help=f"{meaning}{known}".replace("%", "%%"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
