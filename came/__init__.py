"""Optimizers that are the same algorithm on one device and on a thousand.

`CAME` and `AdamW` are ordinary `torch.optim.Optimizer`s; under DeepSpeed ZeRO they update each parameter as if it were whole. Start
reading at `came/rules/came.py`, then `came/interval.py` and `came/lockstep.py`.
"""

import importlib
from typing import Any

__all__ = ["AdamW", "CAME", "LayoutError"]

_HOMES = {"AdamW": "came.rules.adamw", "CAME": "came.rules.came", "LayoutError": "came.layouts"}


def __getattr__(name: str) -> Any:
    """Importing `came` costs nothing: torch comes with the first name that needs it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
