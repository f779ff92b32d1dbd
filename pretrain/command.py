"""What every command has in common: a mistake is one `error:` line and exit code 2, Ctrl-C is exit code 130, no traceback for either;
nor where its output is piped into a command that has read enough, such as head."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from pretrain.errors import UserError
from pretrain.exit_codes import INTERRUPTED, USER_ERROR
from pretrain.world import speaks


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as `UserError`; abbreviated options are not taken."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(run: Callable[[list[str]], int], arguments: list[str] | None) -> int:
    """The exit code of `run(arguments)`; without arguments those of this process."""
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # not first at the interpreter's end, where a closed pipe is a traceback
        return code
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        return 128 + signal.SIGPIPE
    except UserError as error:
        if speaks():
            print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _output_is_closed() -> bool:
    """Whether nobody reads standard output any more, as behind `| head`."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))
