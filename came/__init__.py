"""Optimizers that are the same algorithm on one device and on a thousand.

`CAME`, `AdamW`, `LAMB`, `Adafactor` and `SM3` are ordinary `torch.optim.Optimizer`s; where parameters are sharded they update each of
them as if it were whole. Start reading at `came/rules/came.py`, then `came/interval.py` and `came/lockstep.py`.
"""

import importlib
from typing import Any

__all__ = ["CAME", "LAMB", "SM3", "Adafactor", "AdamW", "LayoutError"]

_HOMES = {
    "Adafactor": "came.rules.adafactor",
    "AdamW": "came.rules.adamw",
    "CAME": "came.rules.came",
    "LAMB": "came.rules.lamb",
    "LayoutError": "came.layouts",
    "SM3": "came.rules.sm3",
}


def __getattr__(name: str) -> Any:
    """Importing `came` costs nothing: torch comes with the first name that needs it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
