"""Where kernels run in the tests: in a process of its own, in the interpreter on the CPU; with `CAME_TEST_GPU=1`, compiled, on a GPU."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import pytest
import torch

ON_GPU = os.environ.get("CAME_TEST_GPU") == "1"
DEVICE = "cuda" if ON_GPU else "cpu"


@contextmanager
def process_with_kernels() -> Iterator[Callable[..., Any]]:
    """Gives `run(function, *args)`, which returns what an importable function did there."""
    pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


def prepare() -> None:
    """What a process does before it imports the kernels."""
    torch.set_num_threads(1)
    if not ON_GPU:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
        _patch_the_language_once()


def _patch_the_language_once() -> None:
    """The interpreter lends `triton.language` its own functions when a kernel starts and, which takes most of the time, again at every call
    of one kernel function by another."""
    from triton.runtime.interpreter import InterpretedFunction

    call = InterpretedFunction.__call__

    def call_as_it_is(self: InterpretedFunction, *args: Any, **kwargs: Any) -> Any:
        if self.fn.__module__.startswith("came."):
            return self.rewrite()(*args, **kwargs)
        return call(self, *args, **kwargs)

    InterpretedFunction.__call__ = call_as_it_is
