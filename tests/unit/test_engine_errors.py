"""What goes wrong in a pass itself is said in one line."""

import pytest
import torch

from pretrain.engine import _explained
from pretrain.errors import UserError


def test_memory_that_is_too_small() -> None:
    with pytest.raises(
        UserError,
        match=r"^a micro-batch of 64 does not fit into memory \(CUDA out of memory. Tried to allocate 2.00 GiB\); give train.micro_batch_size=auto",
    ):
        with _explained(64):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")


def test_a_layer_that_cannot_be_compiled() -> None:
    """As where there is no C++ compiler."""

    def compiler(*_: object) -> None:
        raise FileNotFoundError("no C++ compiler")

    with pytest.raises(UserError, match=r"^torch.compile did not succeed \(.*no C\+\+ compiler\); give train.compile=false$"):
        with _explained(64):
            torch.compile(torch.sin, backend=compiler)(torch.ones(2))


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="^another$"):
        with _explained(64):
            raise RuntimeError("another")
