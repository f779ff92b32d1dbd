"""What the tests of the fused step do where the kernels run."""

from typing import Any

import torch

from tests.unit.kernels.ranks import ROWS_AND_VECTORS, Dtypes, Oracle, Ranks, draw, error

FACTORS = ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col")


def errors_against_double_precision(world_size: int, dtypes: Dtypes, steps: int = 2, shapes: Any = None, geometry: Any = None) -> dict:
    """The largest errors of parameters, momentum, second moments and factors after some steps, over all parameters."""
    shapes = shapes or ROWS_AND_VECTORS
    weights = draw(shapes, 0, dtypes.weight)
    ranks, oracle = Ranks(weights, world_size, dtypes, geometry), Oracle(weights)
    for step in range(steps):
        grads = draw(shapes, 1 + step, dtypes.gradient)
        ranks.step(grads)
        oracle.step(grads)
    found: dict[str, float] = {}
    for index, shape in enumerate(shapes):
        found["weights"] = max(found.get("weights", 0), error(ranks.whole(index), oracle[index]))
        found["exp_avg"] = max(found.get("exp_avg", 0), error(ranks.whole(index, "exp_avg"), oracle.state(index, "exp_avg")))
        if len(shape) < 2:
            found["exp_avg_sq"] = max(
                found.get("exp_avg_sq", 0), error(ranks.whole(index, "exp_avg_sq"), oracle.state(index, "exp_avg_sq"))
            )
        else:
            for name in FACTORS:
                wanted = oracle.state(index, name)
                found[name] = max(found.get(name, 0), error(ranks.factor(index, name).flatten(), wanted.flatten()))
    return found


def bits_after(world_size: int, poison: float) -> list[torch.Tensor]:
    """Weights and momentum after two steps with `poison` in every workspace."""
    weights = draw(ROWS_AND_VECTORS, 0)
    ranks = Ranks(weights, world_size)
    for step in range(2):
        ranks.step(draw(ROWS_AND_VECTORS, 1 + step), poison)
    return [ranks.whole(index, name) for index in range(len(weights)) for name in (None, "exp_avg")]
