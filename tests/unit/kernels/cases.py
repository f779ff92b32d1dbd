"""What the tests of the fused step do where the kernels run."""

from typing import Any

import torch

from came import CAME, kernels
from came.momentum import decode, encode_
from came.rounding import Draws
from tests.unit.kernels.ranks import HYPER, SHAPES, WITH_BLOCKS, Dtypes, Oracle, Ranks, cut, cut_each, draw, error, small

FACTORS = ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col")


def on_their_way(
    shapes: Any, dtypes: Dtypes, world_size: int, geometry: Any = None, cutting: Any = cut, **hyper: Any
) -> tuple[Ranks, Oracle]:
    """Ranks and the oracle in the same state, after two steps of the oracle."""
    oracle = Oracle(draw(shapes, 0), **hyper)
    for step in range(2):
        oracle.step(draw(shapes, 1 + step))
    oracle.round()
    for reference in oracle.references:
        reference.params = [param.to(dtypes.weight).double() for param in reference.params]
    ranks = Ranks([oracle[index].float() for index in range(len(shapes))], world_size, dtypes, geometry, cutting)
    ranks.take(oracle)
    return ranks, oracle


def errors_against_double_precision(
    world_size: int, dtypes: Dtypes, shapes: Any = SHAPES, geometry: Any = None, cutting: Any = cut
) -> dict[str, float]:
    """The largest errors of parameters, momentum, second moments and factors after one step, over all parameters."""
    ranks, oracle = on_their_way(shapes, dtypes, world_size, geometry, cutting)
    grads = draw(shapes, 3, dtypes.gradient)
    ranks.step(grads)
    oracle.step(grads)
    found: dict[str, float] = {}
    for index, shape in enumerate(shapes):
        errors = {"weights": error(ranks.whole(index), oracle[index])}
        errors["exp_avg"] = error(ranks.momentum(index), oracle.state(index, "exp_avg"))
        if len(shape) < 2:
            errors["exp_avg_sq"] = error(ranks.whole(index, "exp_avg_sq"), oracle.state(index, "exp_avg_sq"))
        else:
            errors |= {name: error(ranks.factor(index, name).flatten(), oracle.state(index, name).flatten()) for name in FACTORS}
        found = errors | {name: max(value, errors.get(name, 0.0)) for name, value in found.items()}
    return found


FEWER_THAN_RANKS_FILL = [(5,), (9,)]
"""Vectors whose slices leave the last of four ranks nothing but padding."""


def errors_where_a_rank_has_padding_alone() -> dict[str, float]:
    return errors_against_double_precision(4, Dtypes(), FEWER_THAN_RANKS_FILL, cutting=cut_each)


def obstacles_where_a_rank_has_padding_alone(momentum: str) -> tuple[list, list[bool]]:
    """What each rank finds that the kernels do not take, with the momentum's dtype that it would try them with; and which keep some."""
    ranks = Ranks(draw(FEWER_THAN_RANKS_FILL, 0), 4, Dtypes(momentum=momentum), cutting=cut_each).ranks
    found = []
    for rank in ranks:
        ((place, state),) = zip(rank.places, rank.states, strict=True)
        place.handed.grad = torch.zeros_like(place.handed)
        hyper = CAME([place.handed]).defaults
        obstacle = kernels.obstacle(place, state, rank.rule, hyper, FEWER_THAN_RANKS_FILL)
        found.append((obstacle, kernels.momentum_dtype(place.handed, state, rank.rule)))
    return found, ["exp_avg" in rank.states[0] for rank in ranks]


def bits_of_a_step(world_size: int, poison: float) -> list[torch.Tensor]:
    """Weights and momentum after a step with `poison` in every workspace."""
    ranks, _ = on_their_way(SHAPES, Dtypes(), world_size)
    ranks.step(draw(SHAPES, 3), poison)
    return [ranks.whole(index, name) for index in range(len(SHAPES)) for name in (None, "exp_avg")]


def encoded_otherwise(momentum: str, world_size: int) -> list[str]:
    """Where momentum that the kernels kept in less than float32 is not, to the bit, what `came.momentum` makes of the same values; and
    where the weights are not those that momentum in float32 gives."""
    low, _ = on_their_way(WITH_BLOCKS, Dtypes(momentum=momentum), world_size, small(block_cols=256))
    high, _ = on_their_way(WITH_BLOCKS, Dtypes(), world_size, small(block_cols=256))
    pairs = list(zip(low.shards(), high.shards(), strict=True))
    for (shard, state, _), (_, in_full, _) in pairs:
        in_full["exp_avg"].copy_(decode(state, shard.interval))
    grads = draw(WITH_BLOCKS, 3)
    low.step(grads)
    high.step(grads)
    different = []
    for (shard, state, weights), (_, in_full, wanted_weights) in pairs:
        wanted = {name: torch.zeros_like(state[name]) for name in ("exp_avg", "exp_avg_scale") if name in state}
        encode_(wanted, in_full["exp_avg"], shard.interval, Draws(HYPER["seed"], int(state["step"]), shard.param))
        compared = {name: (state[name], value) for name, value in wanted.items()} | {"weights": (weights, wanted_weights)}
        different += [f"{name} of {shard.interval}" for name, (mine, theirs) in compared.items() if not torch.equal(mine, theirs)]
    return different


def residual_of_momentum_close_to_the_update(clip_threshold: float, closeness: float = 1e-3) -> dict[str, float]:
    """Errors of the confidence's factors, and of the step over its size, where momentum differs from the update by `closeness`. With beta3
    = 0 the factors are the residual of this step alone."""
    shape, hyper = (24, 64), dict(clip_threshold=clip_threshold, betas=(0.9, 0.999, 0.0))
    ranks, oracle = on_their_way([shape], Dtypes(), 1, **hyper)
    for group in ranks.ranks[0].groups:
        group |= hyper
    (grad,) = draw([shape], 3)
    state = oracle.references[0].states[0]
    squares = grad.double().square()
    row, col = (0.999 * state[name] + 0.001 * squares.mean(dim) for name, dim in zip(FACTORS[:2], (-1, -2), strict=True))
    update = grad.double() / (row[:, None] * col[None, :] / row.mean()).sqrt()
    update /= max(1.0, float(update.square().mean().sqrt()) / clip_threshold)
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * update.square().mean().sqrt()
    state["exp_avg"] = update + closeness * noise
    oracle.round()
    ranks.take(oracle)
    before = oracle[0].clone()
    ranks.step([grad])
    oracle.step([grad])
    found = {name: error(ranks.factor(0, name).flatten(), oracle.state(0, name).flatten()) for name in FACTORS[2:]}
    moved = oracle[0] - before
    return found | {"step": float((ranks.whole(0).double() - before - moved).abs().max() / moved.abs().max())}
