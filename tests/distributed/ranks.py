"""Run a function on several ranks of a gloo process group on this machine, many cells per group."""

from came.verify.ranks import run_on_ranks

__all__ = ["run_on_ranks"]
