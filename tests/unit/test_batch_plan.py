"""global batch = micro-batch x accumulation x ranks, or an error that names the nearest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.batch_plan import BatchPlan
from pretrain.errors import UserError


def test_the_paper_s_batch():
    plan = BatchPlan.make(32768, 16, 8)
    assert plan.gradient_accumulation_steps == 256


def test_an_odd_batch_names_the_nearest_ones():
    with pytest.raises(UserError) as error:
        BatchPlan.make(1000, 32, 4)
    assert str(error.value) == (
        "train.global_batch_size=1000 is not a multiple of train.micro_batch_size=32 x 4 ranks; give a micro-batch that divides it, or the"
        " nearest global batch: 896, 1024"
    )


def test_no_micro_batch_is_the_mend_where_the_ranks_do_not_divide_the_batch():
    with pytest.raises(UserError) as error:
        BatchPlan.make(8, 1, 7)
    assert str(error.value) == "train.global_batch_size=8 is not a multiple of its 7 ranks; give the nearest global batch: 7, 14"


def test_a_batch_too_small_for_one_micro_step_names_only_a_possible_one():
    with pytest.raises(UserError, match=r"nearest global batch: 128$"):
        BatchPlan.make(100, 32, 4)


@given(st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 16))
def test_a_plan_covers_the_batch_exactly_or_its_error_names_batches_that_work(batch: int, micro: int, ranks: int):
    try:
        plan = BatchPlan.make(batch, micro, ranks)
    except UserError as error:
        nearest = [int(size) for size in str(error).rpartition("nearest global batch: ")[2].split(", ")]
        assert all(abs(size - batch) < micro * ranks for size in nearest)
        assert all(BatchPlan.make(size, micro, ranks).global_batch_size == size for size in nearest)
    else:
        assert plan.micro_batch_size * plan.gradient_accumulation_steps * plan.world_size == batch
