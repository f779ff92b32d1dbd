"""What every command has in common: a mistake is one `error:` line and exit code 2, Ctrl-C is exit code 130, no traceback for either."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from pretrain.errors import UserError

USER_ERROR = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as `UserError`; abbreviated options are not taken."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(run: Callable[[list[str]], int], arguments: list[str] | None) -> int:
    """The exit code of `run(arguments)`; without arguments those of this process."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # under torchrun every rank fails alike: one line per machine
            print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
