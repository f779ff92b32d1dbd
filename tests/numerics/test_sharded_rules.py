"""Every rule and variant, whatever the shapes, cuts and orders of the parameters: the sharded update is the whole one.

There are no process groups here: the ranks' rules run in turns in this process, and what they yield is combined between the turns.
"""

from collections.abc import Iterator
from functools import reduce
from math import prod
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

import came
from came import interval as intervals
from came.interval import Interval
from came.lockstep import Coroutine, Reduction
from came.observation import Observer
from came.rules import Kind, state_shape

RULES: dict[str, tuple[type, dict[str, Any]]] = {
    "came": (came.CAME, {}),
    "came bias-corrected": (came.CAME, {"bias_correction": True}),
    "came cautious": (came.CAME, {"cautious": True}),
    "came trust ratio": (came.CAME, {"trust_ratio": True}),
    "came legacy": (came.CAME, {"legacy_1d": True}),
    "came everything": (came.CAME, {"bias_correction": True, "cautious": True, "trust_ratio": True}),
    "adamw": (came.AdamW, {}),
    "lamb": (came.LAMB, {}),
    "lamb unadapted": (came.LAMB, {"adapt": False}),
    "adafactor": (came.Adafactor, {}),
    "adafactor fixed with momentum": (came.Adafactor, {"beta1": 0.9, "scale_parameter": False, "relative_step": False}),
    "sm3": (came.SM3, {}),
    "sm3 without momentum": (came.SM3, {"momentum": 0.0}),
}
every_rule = pytest.mark.parametrize("name", RULES)

shapes = st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple)


@st.composite
def cut_parameters(draw: Any) -> list[tuple[tuple[int, ...], list[int]]]:
    """Parameters in an order, each with the places at which two to four ranks cut it; some ranks hold nothing."""
    ranks = draw(st.integers(2, 4))
    params = []
    for shape in draw(st.permutations(draw(st.lists(shapes, min_size=1, max_size=4)))):
        inner = sorted(draw(st.lists(st.integers(0, prod(shape)), min_size=ranks - 1, max_size=ranks - 1)))
        params.append((shape, [0, *inner, prod(shape)]))
    return params


class Rank:
    """What one rank holds of each parameter: weights and state."""

    def __init__(self, rule: came.rules.Rule, held: list[Interval], weights: list[torch.Tensor]) -> None:
        self.rule, self.held = rule, held
        self.weights = [whole.flatten()[part.start : part.stop].clone() for part, whole in zip(held, weights, strict=True)]
        self.states = [
            {name: torch.zeros(state_shape(kind, part), dtype=torch.float64) for name, kind in rule.state(part).items()} for part in held
        ]

    def updates(self, grads: list[torch.Tensor], hyper: dict[str, Any]) -> list[Coroutine]:
        made = []
        for part, weights, state, grad in zip(self.held, self.weights, self.states, grads, strict=True):
            if "step" in state:
                state["step"] += 1
            local = grad.flatten()[part.start : part.stop].clone()
            made.append(self.rule.update(part, weights, local, state, hyper, Observer()))
        return made


def run_together(updates: list[list[Coroutine]]) -> None:
    """Drive `updates[rank][parameter]` in lock-step, each parameter's requests combined over the ranks."""
    for of_one in zip(*updates, strict=True):
        answers: Iterator = iter([None] * len(of_one))
        while True:
            requests = [_advance(update, answer) for update, answer in zip(of_one, answers, strict=True)]
            if requests[0] is None:
                assert requests == [None] * len(requests), "a rank goes on where another has ended"
                break
            answers = iter([_combine(requests)] * len(requests))


def _advance(update: Coroutine, answer: tuple[torch.Tensor, ...] | None) -> Reduction | None:
    try:
        return update.send(answer)
    except StopIteration:
        return None


def _combine(requests: list[Reduction]) -> tuple[torch.Tensor, ...]:
    assert len({request.op for request in requests}) == 1
    join = {dist.ReduceOp.SUM: torch.add, dist.ReduceOp.MAX: torch.maximum}[requests[0].op]
    columns = zip(*(request.tensors for request in requests), strict=True)
    return tuple(reduce(join, column).clone() for column in columns)


def train(ranks: list[Rank], whole_shapes: list[tuple[int, ...]], hyper: dict[str, Any], seed: int, steps: int = 4) -> list[torch.Tensor]:
    """Whole weights after some steps along random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        grads = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in whole_shapes]
        run_together([rank.updates(grads, hyper) for rank in ranks])
    return [torch.cat([rank.weights[index] for rank in ranks]).view(shape) for index, shape in enumerate(whole_shapes)]


@every_rule
@settings(deadline=None, max_examples=40)
@given(params=cut_parameters(), seed=st.integers(0, 2**31), piece=st.sampled_from([1, 3, 8, 2**18]))
def test_the_sharded_update_is_the_whole_one(name: str, params: list, seed: int, piece: int) -> None:
    """Also in pieces of any size, as a CPU passes over them."""
    optimizer, options = RULES[name]
    made = optimizer([torch.nn.Parameter(torch.zeros(1))], weight_decay=0.01, **options)
    rule, hyper = made.rule, {**made.defaults, "lr": 0.01}
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape, _ in params]
    whole_shapes = [shape for shape, _ in params]

    whole = Rank(rule, [Interval.whole(shape) for shape in whole_shapes], weights)
    wanted = train([whole], whole_shapes, hyper, seed)

    ranks = range(len(params[0][1]) - 1)
    sharded = [Rank(rule, [Interval(shape, cuts[rank], cuts[rank + 1]) for shape, cuts in params], weights) for rank in ranks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "CACHE_ELEMENTS", piece)
        found = train(sharded, whole_shapes, hyper, seed)

    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    for index, shape in enumerate(whole_shapes):
        kinds = rule.state(Interval.whole(shape))
        for key, kind in kinds.items():
            held = [rank.states[index][key] for rank in sharded if rank.held[index].numel]
            if kind is Kind.LOCAL:
                held = [torch.cat(held)]
            for part in held:  # factors are alike on every rank that holds some of the parameter
                torch.testing.assert_close(part, whole.states[index][key], rtol=1e-9, atol=1e-12)


@every_rule
@settings(deadline=None, max_examples=10)
@given(params=st.lists(shapes, min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_a_state_dict_goes_round_and_two_runs_are_bit_equal(name: str, params: list, seed: int) -> None:
    optimizer, options = RULES[name]

    def run(interrupted: bool) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        values = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in params]
        made = optimizer(values, lr=0.01, **options)
        for step in range(4):
            if interrupted and step == 2:
                saved = made.state_dict()
                made = optimizer(values, lr=1.0, **{key: not value if isinstance(value, bool) else value for key, value in options.items()})
                made.load_state_dict(saved)
            for value in values:
                value.grad = torch.randn(value.shape, generator=generator)
            made.step()
        return [value.detach() for value in values]

    first, again, interrupted = run(False), run(False), run(True)
    for left, middle, right in zip(first, again, interrupted, strict=True):
        assert torch.equal(left, middle) and torch.equal(left, right)
