"""`python -m pretrain` whose rank 1 is killed once, at its fifth step. A script of the tests' own."""

import os
import signal
import sys
from pathlib import Path


def die_once() -> None:
    from pretrain.engine import Engine

    step, died, steps = Engine.step, Path("died"), 0

    def dying_step(self: Engine, *args: object, **settings: object) -> object:
        nonlocal steps
        steps += 1
        if os.environ["RANK"] == "1" and steps == 5 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **settings)

    Engine.step = dying_step


if __name__ == "__main__":
    from pretrain.__main__ import main

    die_once()
    sys.exit(main())
