"""The command. Imports nothing heavy before its arguments are known to be good."""

import argparse
import importlib.util
import logging
import platform
import sys
import time
from typing import NoReturn

OPTIMIZERS = ("came", "adamw", "lamb", "adafactor", "sm3")
STAGES = ("0", "1", "2", "3", "fsdp2")
PRECISIONS = ("fp32", "bf16")
MAX_RANKS = 64

_DESCRIPTION = """\
Train a small model with odd shapes, sharded so that the cuts fall inside rows, and compare every weight with the same algorithm on whole
tensors. Runs on GPUs with NCCL where there is one for each rank, else on the CPU with gloo. Lists are separated by commas."""
_EPILOG = "Exit code: 0 when everything holds, 1 when something does not, 2 for arguments that cannot be run."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage above it."""
        self.exit(2, f"error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if any(stage != "fsdp2" for stage in options.stages) and importlib.util.find_spec("deepspeed") is None:
        print("error: DeepSpeed is not installed; install deepspeed, or verify FSDP2 alone: --stages fsdp2", file=sys.stderr)
        return 2

    from came.verify import matrix, table

    logging.getLogger("came").setLevel(logging.ERROR)
    begun = time.monotonic()
    stages = [stage if stage == "fsdp2" else int(stage) for stage in options.stages]
    chosen = matrix.cells(options.optimizers, stages, options.dtype)
    rows = [row for ranks in options.ranks for row in matrix.run(chosen, ranks)]
    print(table.table(rows))
    print(f"\n{table.EXPLANATION}\n\n{_versions(stages)}; {time.monotonic() - begun:.0f} s")
    print(table.verdict(rows))
    return 0 if all(row.holds for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m came.verify", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--ranks", type=_ranks, default=[3], help="numbers of processes (default: 3)")
    parser.add_argument("--stages", type=_choice(STAGES), default=list(STAGES), help=f"ZeRO stages and FSDP2 (default: {','.join(STAGES)})")
    parser.add_argument("--dtype", type=_choice(PRECISIONS), default=list(PRECISIONS), help="of weights and gradients (default: fp32,bf16)")
    parser.add_argument("--optimizers", type=_choice(OPTIMIZERS), default=list(OPTIMIZERS), help=f"(default: all: {','.join(OPTIMIZERS)})")
    return parser


def _choice(known: tuple[str, ...]):
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for item in chosen:
            if item not in known:
                raise argparse.ArgumentTypeError(f"{item!r} is not one of {', '.join(known)}")
        return list(dict.fromkeys(chosen))

    return parse


def _ranks(text: str) -> list[int]:
    try:
        ranks = [int(item) for item in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 1,2,3") from None
    if not all(1 <= number <= MAX_RANKS for number in ranks):
        raise argparse.ArgumentTypeError(f"{text!r}: each must be from 1 to {MAX_RANKS}")
    return list(dict.fromkeys(ranks))


def _versions(stages: list[int | str]) -> str:
    import torch

    found = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    if any(stage != "fsdp2" for stage in stages):
        import importlib.metadata

        found.append(f"DeepSpeed {importlib.metadata.version('deepspeed')}")
    gpus = torch.cuda.device_count()
    return ", ".join([*found, f"{gpus} x {torch.cuda.get_device_name(0)}" if gpus else "CPU"])


if __name__ == "__main__":
    sys.exit(main())
