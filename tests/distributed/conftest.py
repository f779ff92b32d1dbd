"""Ranks of the tests' own process groups are forked from a process that has imported everything: each group then begins in a moment."""

import multiprocessing
from functools import partial

import pytest
import torch.multiprocessing

from came.verify import ranks

_PRELOADED = ["tests.preloaded"]


@pytest.fixture(scope="session", autouse=True)
def forked_ranks() -> None:
    multiprocessing.set_forkserver_preload(_PRELOADED)
    ranks.mp.spawn = partial(torch.multiprocessing.start_processes, start_method="forkserver")
