"""How momentum is kept: codes that are right on average and never far off, in pieces that do not depend on the cut."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from came import CAME
from came.interval import Interval
from came.momentum import BLOCK, DTYPES, LARGEST, MOMENTUM, SCALE, bounds, decode, encode_, pieces
from came.optimizer import ShardedOptimizer
from came.rounding import Draws

LEVELS = torch.arange(LARGEST + 1, dtype=torch.float64) ** 2 / LARGEST**2
DRAWS = Draws(seed=1, step=2, parameter=3)


def kept_for(interval: Interval, dtype: torch.dtype = torch.int8) -> dict[str, Tensor]:
    return {MOMENTUM: torch.zeros(interval.numel, dtype=dtype), SCALE: torch.zeros(pieces(interval))}


def encoded(values: Tensor, interval: Interval | None = None, draws: Draws | None = DRAWS, dtype: torch.dtype = torch.int8) -> dict:
    interval = interval or Interval.whole((values.numel(),))
    kept = kept_for(interval, dtype)
    encode_(kept, values, interval, draws)
    return kept


def normal(count: int, seed: int = 0) -> Tensor:
    """Of sizes that differ from block to block by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.randint(-12, 3, (-(-count // BLOCK),), generator=generator).repeat_interleave(BLOCK)[:count]
    return torch.randn(count, generator=generator) * sizes


@pytest.mark.parametrize(
    ("start", "stop", "edges"),
    [
        (0, 1000, [0, 256, 512, 768, 1000]),
        (256, 512, [256, 512]),
        (255, 513, [255, 256, 512, 513]),
        (300, 310, [300, 310]),
        (512, 513, [512, 513]),
    ],
)
def test_pieces_are_what_blocks_of_the_parameter_an_interval_cuts(start: int, stop: int, edges: list[int]) -> None:
    interval = Interval((2000,), start, stop)
    assert bounds(interval).tolist() == edges and pieces(interval) == len(edges) - 1
    values = normal(2000)[start:stop]
    scales = [values[first - start : last - start].abs().max() for first, last in zip(edges, edges[1:], strict=False)]
    assert torch.equal(encoded(values, interval)[SCALE], torch.stack(scales))


def test_nothing_has_no_pieces() -> None:
    assert pieces(Interval((2000,), 0, 0)) == 0 and encoded(torch.zeros(0), Interval((2000,), 0, 0))[SCALE].numel() == 0


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_whole_blocks_do_not_depend_on_the_cut(dtype: torch.dtype) -> None:
    values, whole = normal(5000), Interval((5000,), 0, 5000)
    all_of_it = encoded(values, whole, dtype=dtype)
    for start, stop in ((0, 5000), (200, 4000), (256, 1024), (1111, 5000)):
        part = encoded(values[start:stop], Interval((5000,), start, stop), dtype=dtype)
        first, last = -(-start // BLOCK) * BLOCK, stop // BLOCK * BLOCK
        assert torch.equal(part[MOMENTUM][first - start : last - start], all_of_it[MOMENTUM][first:last])


@pytest.mark.parametrize("count", [2**18 + 300, 100])
def test_more_than_a_cache_holds_is_the_same(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(count)
    found = encoded(values)
    monkeypatch.setattr("came.momentum.CACHE_ELEMENTS", 2 * BLOCK)
    again = encoded(values)
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert torch.equal(decode(found, Interval.whole((count,))), decode(again, Interval.whole((count,))))


def test_the_largest_is_exact_and_zero_stays_zero() -> None:
    values = normal(100 * BLOCK).view(100, BLOCK)
    values[:, 7] = 0.0
    values[50] = 0.0
    kept = encoded(values.flatten())
    found = decode(kept, Interval.whole((100 * BLOCK,))).view(100, BLOCK)
    largest = values.abs().argmax(-1, keepdim=True)
    assert torch.equal(found.gather(1, largest), values.gather(1, largest))
    assert not found[:, 7].any() and not found[50].any() and not kept[MOMENTUM].view(100, BLOCK)[50].any()


def test_an_error_is_less_than_the_gap_between_the_neighbouring_codes() -> None:
    values = normal(1000 * BLOCK).view(1000, BLOCK)
    scale = values.abs().amax(-1, keepdim=True).double()
    share = (values.abs() / scale).clamp_(0, 1)
    low = torch.searchsorted(LEVELS, share, right=True).clamp_(max=LARGEST) - 1
    gap = (LEVELS[low + 1] - LEVELS[low]) * scale
    for draws, most in ((DRAWS, 1.0), (None, 0.5)):
        found = decode(encoded(values.flatten(), draws=draws), Interval.whole((values.numel(),))).view_as(values)
        assert bool(((found.double() - values).abs() <= most * gap + 1e-6 * scale * share.sqrt()).all())
        assert bool((found * values >= 0).all())


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_what_was_decoded_gives_the_same_codes_and_scales_again(dtype: torch.dtype) -> None:
    interval = Interval((2**17 + 1000,), 77, 2**17 + 900)
    kept = encoded(normal(interval.numel), interval, dtype=dtype)
    again = encoded(decode(kept, interval), interval, None, dtype)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_every_code_is_decoded_to_its_square() -> None:
    codes = torch.arange(-LARGEST, LARGEST + 1).to(torch.int8)
    found = decode({MOMENTUM: codes, SCALE: torch.tensor([3.0])}, Interval.whole((codes.numel(),)))
    torch.testing.assert_close(found.double(), 3.0 * codes.sign() * LEVELS[codes.abs().int()], rtol=2e-7, atol=0)
    assert found[-1] == 3.0 and found[0] == -3.0


@pytest.mark.parametrize("share", [1e-6, 3e-5, 1.5 / LARGEST**2, 0.01, 0.1234, 0.5, 0.77, 0.985, 0.99])
@pytest.mark.parametrize("scale", [1.0, -3e-7])
def test_rounding_is_unbiased_to_four_sigma_over_a_million_draws(share: float, scale: float) -> None:
    values = torch.full((4096, BLOCK), share * scale)
    values[:, 0] = scale
    found = decode(encoded(values.flatten()), Interval.whole((values.numel(),))).view_as(values)[:, 1:].double() / scale
    exact = float(values[0, 1].double() / values[0, 0].double())
    low = int(torch.searchsorted(LEVELS, torch.tensor(exact, dtype=torch.float64))) - 1
    gap = float(LEVELS[low + 1] - LEVELS[low])
    part = (exact - float(LEVELS[low])) / gap
    assert found.numel() > 10**6 and found.min() >= LEVELS[low] - 1e-6 and found.max() <= LEVELS[low + 1] + 1e-6
    assert abs(float(found.mean()) - exact) < 4 * gap * (part * (1 - part) / found.numel()) ** 0.5


def test_so_it_is_over_a_million_values() -> None:
    values = torch.randn(4096, BLOCK, generator=torch.Generator().manual_seed(0)).double()
    scale = values.float().abs().amax(-1, keepdim=True).double()
    share = (values.float().abs() / scale).clamp_(max=1.0)
    low = torch.searchsorted(LEVELS, share, right=True).clamp_(max=LARGEST) - 1
    gap = LEVELS[low + 1] - LEVELS[low]
    part = (share - LEVELS[low]) / gap
    found = decode(encoded(values.float().flatten()), Interval.whole((values.numel(),))).view_as(values).double()
    errors, sigma = (found - values.float()) / scale, gap * (part * (1 - part)).clamp_(min=0).sqrt()
    assert abs(float(errors.sum())) < 4 * float(sigma.square().sum().sqrt())
    towards_zero = errors * values.sign()
    assert abs(float(towards_zero.sum())) < 4 * float(sigma.square().sum().sqrt())


def test_momentum_that_decays_beside_a_large_one_reaches_zero_on_average_as_it_should() -> None:
    """To the nearest code it would stay at the code's value for ever."""
    interval = Interval.whole((4096 * BLOCK,))
    values = torch.full((4096, BLOCK), 4 / LARGEST**2)
    values[:, 0] = 1.0
    kept = encoded(values.flatten(), draws=Draws(0, 0, 0))
    for step in range(1, 11):
        values = decode(kept, interval).view(4096, BLOCK) * 0.9
        values[:, 0] = 1.0
        kept = encoded(values.flatten(), draws=Draws(0, step, 0))
    found = decode(kept, interval).view(4096, BLOCK)[:, 1:].double() * LARGEST**2
    assert float(found.mean()) == pytest.approx(4 * 0.9**10, abs=4 * float(found.std()) / found.numel() ** 0.5)


@pytest.mark.parametrize("size", [1e-28, 1e-30, 1e-45])
def test_what_is_too_small_to_move_anything_may_become_zero_and_no_more(size: float) -> None:
    values = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) * size
    found = decode(encoded(values), Interval.whole((BLOCK,)))
    assert found.isfinite().all() and float(found.abs().max()) in (0.0, float(values.abs().max()))


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_so_and_stays_in_its_block(bad: float) -> None:
    values = normal(3 * BLOCK)
    values[BLOCK + 5] = bad
    found = decode(encoded(values), Interval.whole((3 * BLOCK,))).view(3, BLOCK)
    assert not found[1, 5].isfinite() and found[[0, 2]].isfinite().all()


# In the optimizer -------------------------------------------------------------------------------------------------------------------

SHAPES = [(61, 30), (17,), (3, 30, 13), (600,), (), (0, 4)]
low_precision = pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter((torch.randn(shape, generator=generator) * 0.1).to(dtype)) for shape in SHAPES]


def train(made: ShardedOptimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for param in made.param_groups[0]["params"]:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        made.step()


def equal(left: list[nn.Parameter], right: list[nn.Parameter]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(left, right, strict=True))


@low_precision
def test_state_is_kept_in_its_dtype_and_the_factors_in_float32(dtype: str) -> None:
    for param_dtype in (torch.float32, torch.bfloat16):
        params = parameters(param_dtype)
        made = CAME(params, momentum_dtype=dtype)
        train(made, 0, 2)
        state = made.state[params[0]]
        assert state[MOMENTUM].dtype == DTYPES[dtype] and state[MOMENTUM].shape == (61, 30)
        assert {value.dtype for name, value in state.items() if name != MOMENTUM} == {torch.float32}
        assert (SCALE in state) == (dtype == "int8") and (dtype != "int8" or state[SCALE].shape == (-(-61 * 30 // BLOCK),))


@low_precision
def test_the_first_step_is_float32_s_and_the_momentum_is_that_of_float32_rounded(dtype: str) -> None:
    exact, low = parameters(), parameters()
    of_exact, of_low = CAME(exact, lr=0.01), CAME(low, lr=0.01, momentum_dtype=dtype, seed=9)
    for made in (of_exact, of_low):
        train(made, 0, 1)
    assert equal(exact, low)
    for number, (mine, theirs) in enumerate(zip(low, exact, strict=True)):
        if mine.numel():
            whole = Interval.whole(tuple(mine.shape))
            wanted = encoded(of_exact.state[theirs][MOMENTUM].flatten(), whole, Draws(9, 1, number), DTYPES[dtype])
            assert torch.equal(of_low.state[mine][MOMENTUM].flatten(), wanted[MOMENTUM])
            if dtype == "int8":
                assert torch.equal(of_low.state[mine][SCALE], wanted[SCALE])


@low_precision
def test_the_seed_and_nothing_else_changes_what_is_drawn(dtype: str) -> None:
    trained = []
    for seed in (0, 0, 1):
        params = parameters()
        torch.manual_seed(len(trained))
        train(CAME(params, lr=0.01, momentum_dtype=dtype, seed=seed), 0, 4)
        trained.append(params)
    assert equal(trained[0], trained[1]) and not equal(trained[0], trained[2])


@low_precision
@pytest.mark.parametrize("param_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_loaded_a_copied_and_a_pickled_one_go_on_to_the_bit(dtype: str, param_dtype: torch.dtype) -> None:
    params, others = parameters(param_dtype), parameters(param_dtype)
    made, loaded = CAME(params, lr=0.01, momentum_dtype=dtype, seed=4), CAME(others, momentum_dtype=dtype)
    train(made, 0, 3)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for mine, theirs in zip(others, params, strict=True):
            mine.copy_(theirs)
    assert [value.dtype for state in loaded.state.values() for value in state.values()] == [
        value.dtype for state in made.state.values() for value in state.values()
    ]
    copied = copy.deepcopy((params, made))
    file = io.BytesIO()
    torch.save((params, made), file)
    file.seek(0)
    pickled = torch.load(file, weights_only=False)
    for each in (made, loaded, copied[1], pickled[1]):
        train(each, 3, 6)
    assert equal(others, params) and equal(copied[0], params) and equal(pickled[0], params)


def test_parameters_are_numbered_through_the_groups_and_those_added_later_at_the_end() -> None:
    params, later = parameters(), parameters()
    made = CAME([{"params": params[:2]}, {"params": params[2:]}], momentum_dtype="int8")
    made.add_param_group({"params": later})
    for each, held in ((made, params + later), copy.deepcopy((made, params + later))):
        assert [each.parameter_numbers()[id(param)] for param in held] == list(range(len(held)))
        assert each.rule == made.rule


@pytest.mark.parametrize(("of", "into"), [("int8", "float32"), ("float32", "int8"), ("bfloat16", "float32"), ("int8", "bfloat16")])
def test_a_state_of_another_dtype_is_refused(of: str, into: str) -> None:
    made = CAME(parameters(), momentum_dtype=of)
    train(made, 0, 1)
    with pytest.raises(ValueError, match=f"momentum in torch.{of}, and this optimizer keeps it in torch.{into}"):
        CAME(parameters(), momentum_dtype=into).load_state_dict(made.state_dict())


def test_scales_of_other_pieces_are_refused() -> None:
    made, other = CAME(parameters(), momentum_dtype="int8"), CAME(parameters(), momentum_dtype="int8")
    train(made, 0, 1)
    saved = made.state_dict()
    saved["state"][0][SCALE] = saved["state"][0][SCALE][:-1]
    other.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"exp_avg_scale of \(7,\), and \(8,\) is needed here: it was cut otherwise"):
        train(other, 1, 2)


@pytest.mark.parametrize(("name", "value"), [("momentum_dtype", "int4"), ("seed", -1), ("seed", 1.5), ("seed", 2**64)])
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value} is not valid: it must be"):
        CAME(parameters(), **{name: value})


@each_dtype
def test_variants_keep_their_meaning(dtype: str) -> None:
    """`legacy_1d` multiplies the momentum that is kept."""
    params = parameters()
    made = CAME(params, lr=0.5, momentum_dtype=dtype, legacy_1d=True, cautious=True, trust_ratio=True, bias_correction=True)
    plain = CAME(parameters(), lr=0.5)
    train(made, 0, 1)
    train(plain, 0, 1)
    found, wanted = (each.state[each.param_groups[0]["params"][3]] for each in (made, plain))
    interval = Interval.whole((600,))
    values = found[MOMENTUM] if dtype == "float32" else decode(found, interval)
    torch.testing.assert_close(values, 0.5 * wanted[MOMENTUM], rtol=2**-7, atol=float(wanted[MOMENTUM].abs().max()) / 126)
