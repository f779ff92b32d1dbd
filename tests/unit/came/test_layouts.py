"""Which ways of sharding are intervals, and which are refused by name."""

import re

import pytest
import torch
from torch import nn

from came import CAME, LayoutError
from came.interval import Interval
from came.layouts import fsdp2


@pytest.mark.parametrize(
    ("shape", "dim", "size", "offset", "wanted"),
    [
        ((5, 3), 0, 2, 3, (9, 15)),
        ((4, 5, 3), 0, 1, 2, (30, 45)),  # whole matrices
        ((1, 5, 3), 1, 2, 3, (9, 15)),
        ((7,), 0, 3, 4, (4, 7)),
        ((3, 4), 0, 0, 3, (0, 0)),  # nothing
    ],
)
def test_a_block_along_the_first_dimension_is_an_interval(shape: tuple, dim: int, size: int, offset: int, wanted: tuple) -> None:
    assert fsdp2.interval_of(shape, dim, size, offset) == Interval(shape, *wanted)


@pytest.mark.parametrize(("shape", "dim"), [((5, 3), 1), ((4, 5, 3), 1), ((4, 5, 3), 2)])
def test_other_blocks_are_refused(shape: tuple, dim: int) -> None:
    with pytest.raises(LayoutError, match=re.escape(f"a parameter of shape {shape} is sharded along dimension {dim}")):
        fsdp2.interval_of(shape, dim, 1, 0)


@pytest.mark.parametrize(
    ("mark", "message"),
    [("_fsdp_flattened", "FSDP1"), ("tensor_model_parallel", "tensor parallelism"), ("model_parallel", "tensor parallelism")],
)
def test_parameters_that_are_marked_as_pieces_are_refused(mark: str, message: str) -> None:
    """FSDP1 needs a GPU to be built, so that its own mark stands for it; Megatron and DeepSpeed mark tensor parallel parts."""
    from torch.distributed.fsdp._common_utils import FSDP_FLATTENED

    assert FSDP_FLATTENED == "_fsdp_flattened"
    param = nn.Parameter(torch.ones(4, 3))
    setattr(param, mark, True)
    param.grad = torch.ones(4, 3)
    with pytest.raises(LayoutError, match=message):
        CAME([param]).step()
    assert torch.equal(param, torch.ones(4, 3))
