"""One run of a sweep as a process of its own, `python -m pretrain --config FILE`; what is asked of this process is passed on to it."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pretrain import stopping
from pretrain.exit_codes import STOPPED_ON_REQUEST


def run(file: Path) -> int:
    """The exit code of the run that `file` configures; 85 at once where this process has already been asked to stop.

    This process has to `stopping.listen()`.
    """
    process: subprocess.Popen | None = None

    def send(number: int) -> None:
        if process:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    with stopping.passed_on(send):
        if stopping.requested():
            return STOPPED_ON_REQUEST
        with stopping.kept_from_children():
            process = subprocess.Popen([sys.executable, "-m", "pretrain", "--config", str(file)])
        if stopping.requested():
            send(signal.SIGTERM)  # asked before it was there
        code = process.wait()
    return code if code >= 0 else 128 - code
