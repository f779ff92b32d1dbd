"""`python -m pretrain` with losses that go wrong on rank 1: BAD_STEPS=41:1e4,45:nan multiplies that of the 41st and 45th window. A script
of the tests' own."""

import os
import sys


def spoil_losses() -> None:
    from pretrain import engine

    factors = {int(window): float(factor) for window, factor in (entry.split(":") for entry in os.environ["BAD_STEPS"].split(","))}
    accumulate, combine = engine.Engine.accumulate, engine.combine
    windows = 0

    def counting_accumulate(self: engine.Engine, window: list) -> object:
        nonlocal windows
        windows += 1
        return accumulate(self, window)

    def spoilt_combine(*args: object) -> object:
        return combine(*args) * (factors.get(windows, 1.0) if os.environ["RANK"] == "1" else 1.0)

    engine.Engine.accumulate, engine.combine = counting_accumulate, spoilt_combine


if __name__ == "__mp_main__":  # a rank that the launcher started
    spoil_losses()
if __name__ == "__main__":
    from pretrain.__main__ import main

    sys.exit(main())
