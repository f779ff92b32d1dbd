"""Optimizers that are the same algorithm on one device and on a thousand.

`CAME` and `AdamW` are ordinary `torch.optim.Optimizer`s; under DeepSpeed ZeRO they update each parameter as if it were whole. Start
reading at `came/rules/came.py`, then `came/interval.py` and `came/lockstep.py`.
"""

from typing import Any

__all__ = ["AdamW", "CAME", "LayoutError"]


def __getattr__(name: str) -> Any:
    """Importing `came` costs nothing: torch comes with the first name that needs it (PEP 562)."""
    if name in ("AdamW", "CAME"):
        from came import optimizers

        return getattr(optimizers, name)
    if name == "LayoutError":
        from came.layouts import LayoutError

        return LayoutError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
