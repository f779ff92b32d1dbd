"""`python -m pretrain` with one rank that fails at its second step: how and which, the environment says. A script of the tests' own."""

import os
import signal
import sys
import time
from pathlib import Path


def break_the_engine() -> None:
    from pretrain.engine import Engine

    step, notes = Engine.step, Path(os.environ["FAILING_NOTES"])
    steps_taken = 0

    def failing_step(self: Engine, *args: object, **settings: object) -> object:
        nonlocal steps_taken
        steps_taken += 1
        rank = os.environ["RANK"]
        (notes / f"pid{rank}").write_text(str(os.getpid()))
        if rank == os.environ["FAILING_RANK"] and steps_taken == 2:
            (notes / "failed_at").write_text(str(time.time()))
            fail(os.environ["FAILING_HOW"])
        return step(self, *args, **settings)

    Engine.step = failing_step


def fail(how: str) -> None:
    match how:
        case "raise":
            raise ZeroDivisionError("the rank's own error")
        case "exit":
            sys.exit(3)
        case "crash":
            os._exit(3)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ in ("__main__", "__mp_main__"):  # the second where the launcher's own ranks import it
    break_the_engine()
if __name__ == "__main__":
    from pretrain.__main__ import main

    sys.exit(main())
