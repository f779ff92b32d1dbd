"""Momentum in bfloat16 and 8 bits on every layout: within its rounding of the exact one, the same draws, and through checkpoints."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import fully_shard

from came import CAME, checkpoint
from came.interval import Interval
from came.momentum import BLOCK, LARGEST, MOMENTUM, SCALE, bounds, decode, from_codes
from came.optimizer import ShardedOptimizer
from came.verify.probe import FSDP2, Cell, Probe, draw_gradients
from came.verify.ranks import run_on_ranks
from pretrain.engine import Engine
from tests.distributed.probe import LinearProbe, OffloadedCell, probe_config

STEPS = 6
LOW = ("bfloat16", "int8")
CELLS = {f"stage {stage}": Cell("came", stage, "fp32", 1, steps=STEPS) for stage in range(4)}
MORE = {
    "stage 1, bf16": Cell("came", 1, "bf16", 1, steps=STEPS),
    "stage 3, bf16": Cell("came", 3, "bf16", 1, steps=STEPS),
    "stage 2, offloaded": OffloadedCell("came", 2, "fp32", 1, steps=STEPS),
}
LAYOUTS = [
    *((ranks, name) for ranks in (1, 2, 3) for name in CELLS),
    *((2, name) for name in MORE),
    *((ranks, FSDP2) for ranks in (2, 3)),
]
anywhere = pytest.mark.parametrize(("ranks", "layout"), LAYOUTS, ids=[f"{layout} on {ranks}" for ranks, layout in LAYOUTS])
SAME = [(ranks, layout) for ranks, layout in LAYOUTS if "bf16" not in str(layout)]
same_gradients = pytest.mark.parametrize(("ranks", "layout"), SAME, ids=[f"{layout} on {ranks}" for ranks, layout in SAME])
low_precision = pytest.mark.parametrize("dtype", LOW)


class Kept(NamedTuple):
    """What a rank keeps of one parameter's momentum after one step: codes (numel,), and their scales by element and by piece."""

    start: int
    stop: int
    codes: Tensor
    scales: Tensor
    pieces: Tensor

    @property
    def values(self) -> Tensor:
        """float32 (numel,)."""
        return from_codes(self.codes, self.scales) if self.codes.dtype == torch.int8 else self.codes.float()

    def gaps(self) -> Tensor:
        """More than the rounding to these codes can have changed: the larger of the gaps to the neighbouring codes."""
        if self.codes.dtype == torch.bfloat16:
            return 2.0**-7 * self.codes.float().abs() + torch.finfo(torch.bfloat16).tiny
        return (2 * self.codes.float().abs() + 1) / LARGEST**2 * self.scales


Run = list[dict[str, Kept]]
"""After each step, by parameter."""


def kept_by(optimizer: ShardedOptimizer, names: dict) -> dict[str, Kept]:
    found = {}
    for place in optimizer.places():
        for shard, state in zip(place.shards, optimizer.state_views(place), strict=True):
            interval = shard.interval
            if interval.numel:
                edges = bounds(interval)
                pieces = state.get(SCALE, torch.ones(edges.numel() - 1)).clone()
                values = pieces.repeat_interleave(edges.diff()), edges
                found[names[shard.param]] = Kept(interval.start, interval.stop, state[MOMENTUM].cpu().clone(), *values)
    return found


def make(model: torch.nn.Module, dtype: str) -> CAME:
    return CAME(model.parameters(), lr=1e-3, momentum_dtype=dtype, seed=11)


def start(cell: Cell, dtype: str) -> Engine:
    from pretrain import distributed

    model = LinearProbe()
    return Engine(model, make(model, dtype), *probe_config(cell, distributed.world_size()))


def go_on(engine: Engine, first: int, last: int) -> Iterator[dict[str, Kept]]:
    """Steps along gradients that are the same on every rank, so that all numbers of ranks have the same mean."""
    for step in range(first, last):
        engine.accumulate([{"key": torch.tensor((step, 0, 0))}])
        assert engine.step(lr=1e-3).applied
        yield kept_by(engine.optimizer, engine.names)


def run(cell: Cell, dtype: str) -> Run:
    engine = start(cell, dtype)
    found = list(go_on(engine, 0, STEPS))
    engine.destroy()
    return [{name.removeprefix("model."): kept for name, kept in step.items()} for step in found]


def sharded(dtype: str) -> tuple[Probe, CAME, dict]:
    model = Probe()
    fully_shard(model)
    return model, make(model, dtype), {param: name for name, param in model.named_parameters()}


def train(model: Probe, optimizer: CAME, first: int, last: int) -> None:
    for step in range(first, last):
        model(draw_gradients(step, 0, 0)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()


def run_fsdp2(dtype: str) -> Run:
    model, optimizer, names = sharded(dtype)
    found = []
    for step in range(STEPS):
        train(model, optimizer, step, step + 1)
        found.append(kept_by(optimizer, names))
    return found


def observe(layouts: Sequence[str]) -> dict[tuple[str, str], Run]:
    found = {}
    for layout in layouts:
        for dtype in ("float32", *LOW):
            found[layout, dtype] = run_fsdp2(dtype) if layout == FSDP2 else run((CELLS | MORE)[layout], dtype)
    return found


@pytest.fixture(scope="module")
def observed() -> dict[int, list[dict[tuple[str, str], Run]]]:
    return {ranks: run_on_ranks(ranks, observe, [layout for held, layout in LAYOUTS if held == ranks]) for ranks in (1, 2, 3)}


def one_by_one(by_rank: list[dict], layout: str, *dtypes: str) -> Iterator[tuple[str, tuple[list[Kept], ...]]]:
    """Each rank's part of each parameter, over the steps, kept in each of the dtypes."""
    for found in by_rank:
        runs = [found[layout, dtype] for dtype in dtypes]
        for name in runs[0][0]:
            yield name, tuple([step[name] for step in run] for run in runs)


@anywhere
@low_precision
def test_it_strays_from_the_exact_one_by_what_was_rounded_and_no_more(observed: dict, ranks: int, layout: str, dtype: str) -> None:
    """The probe's updates do not depend on the momentum: what step k rounded off is beta1^(t - k) of itself after step t."""
    for name, (low, exact) in one_by_one(observed[ranks], layout, dtype, "float32"):
        bound = torch.zeros(low[0].stop - low[0].start)
        for step, (mine, right) in enumerate(zip(low, exact, strict=True)):
            bound = 0.9 * bound + mine.gaps()
            noise = 1e-6 * right.codes.abs().max()
            assert bool(((mine.values - right.codes).abs() <= bound + noise).all()), (name, step)
            assert (mine.values != right.codes).any() or mine.codes.numel() < BLOCK


@same_gradients
@low_precision
def test_every_layout_draws_the_same(observed: dict, ranks: int, layout: str, dtype: str) -> None:
    """Whole blocks have the codes that they have on one rank, but for where float32 sums that differ in their last bits come to lie on
    the two sides of a draw. Other draws would make a third of them differ."""
    of_one = observed[1][0]["stage 0", dtype]
    different = total = 0
    for name, (low,) in one_by_one(observed[ranks], layout, dtype):
        for mine, right in zip(low, (step[name] for step in of_one), strict=True):
            first, last = mine.start, mine.stop
            if dtype == "int8":
                first, last = -(-first // BLOCK) * BLOCK, last if last == right.stop else last // BLOCK * BLOCK
            if first < last:
                different += int((mine.codes[first - mine.start : last - mine.start] != right.codes[first:last]).sum())
                total += last - first
    assert total > 10_000 and different <= 1e-3 * total


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_cut_blocks_have_a_scale_for_each_piece_and_their_largest_is_exact(observed: dict, ranks: int) -> None:
    cut = 0
    for _, (low, exact) in one_by_one(observed[ranks], "stage 3", "int8", "float32"):
        mine, right = low[0], exact[0]
        for first, last in zip(mine.pieces[:-1] - mine.start, mine.pieces[1:] - mine.start, strict=True):
            assert mine.scales[first] == right.codes[first:last].abs().max() == mine.values[first:last].abs().max()
        cut += mine.start % BLOCK != 0
    assert (cut > 0) == (ranks > 1)


# Checkpoints --------------------------------------------------------------------------------------------------------------------------

HALF = 3
SAVED = Cell("came", 2, "fp32", 1, steps=STEPS)
AT = [(1, 0), (2, 2), (2, 3), (3, 1), (3, 3)]


def save(folder: str) -> dict[str, tuple[dict[str, Kept], dict[str, Kept]]]:
    """As a run does: a copy, which is written when training has gone on."""
    found = {}
    for dtype in LOW:
        engine = start(SAVED, dtype)
        *_, halfway = go_on(engine, 0, HALF)
        copy = checkpoint.stage(checkpoint.state_dict(engine.optimizer, engine.names), {})
        copy = checkpoint.stage(checkpoint.state_dict(engine.optimizer, engine.names), copy)
        *_, end = go_on(engine, HALF, STEPS)
        checkpoint.write(copy, Path(folder, dtype))
        found[dtype] = halfway, end
        engine.destroy()
    return found


def load(folder: str, stages: Sequence[int]) -> dict[tuple[str, int], tuple[dict[str, Kept], dict[str, Kept]]]:
    found = {}
    for dtype in LOW:
        for stage in stages:
            engine = start(Cell("came", stage, "fp32", 1, steps=STEPS), dtype)
            checkpoint.load(engine.optimizer, engine.names, Path(folder, dtype))
            engine.push_masters()
            loaded = kept_by(engine.optimizer, engine.names)
            *_, end = go_on(engine, HALF, STEPS)
            found[dtype, stage] = loaded, end
            engine.destroy()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def saved(folder: str) -> list[dict]:
    return run_on_ranks(2, save, folder)


@pytest.fixture(scope="module")
def loaded(folder: str, saved: list[dict]) -> dict[int, list[dict]]:
    return {ranks: run_on_ranks(ranks, load, folder, [stage for held, stage in AT if held == ranks]) for ranks in (1, 2, 3)}


@low_precision
def test_a_checkpoint_can_be_read_whole(folder: str, saved: list[dict], dtype: str) -> None:
    whole = checkpoint.load_whole(Path(folder, dtype))
    assert not any(SCALE in key for key in whole)
    for rank in saved:
        for name, kept in rank[dtype][0].items():
            assert torch.equal(whole[f"{name}/{MOMENTUM}"][kept.start : kept.stop].float(), kept.values)
    kinds = {checkpoint.kind_of(key): dtype for key, (_, dtype) in checkpoint.sizes(Path(folder, dtype)).items()}
    assert kinds[MOMENTUM] == getattr(torch, dtype) and (SCALE in kinds) == (dtype == "int8")


@low_precision
def test_at_the_same_layout_it_is_the_uninterrupted_run_to_the_bit(saved: list[dict], loaded: dict, dtype: str) -> None:
    for mine, theirs in zip(loaded[2], saved, strict=True):
        for found, wanted in zip(mine[dtype, 2], theirs[dtype], strict=True):
            assert found.keys() == wanted.keys()
            for name in found:
                assert all(
                    torch.equal(torch.as_tensor(left), torch.as_tensor(right))
                    for left, right in zip(found[name], wanted[name], strict=True)
                )


@pytest.mark.parametrize(("ranks", "stage"), AT)
@low_precision
def test_at_another_pieces_that_agree_come_to_the_bit_and_others_within_half_a_gap(
    folder: str, saved: list[dict], loaded: dict, dtype: str, ranks: int, stage: int
) -> None:
    whole = checkpoint.load_whole(Path(folder, dtype))
    edges: dict[str, set[int]] = {}
    for rank in saved:
        for name, kept in rank[dtype][0].items():
            edges.setdefault(name, set()).update(kept.pieces.tolist())
    cut_otherwise = 0
    for rank in loaded[ranks]:
        for name, kept in rank[dtype, stage][0].items():
            wanted = whole[f"{name}/{MOMENTUM}"][kept.start : kept.stop].float()
            for first, last in zip(kept.pieces[:-1].tolist(), kept.pieces[1:].tolist(), strict=True):
                part = slice(first - kept.start, last - kept.start)
                agree = {first, last} <= edges[name] and not any(first < edge < last for edge in edges[name])
                if dtype == "bfloat16" or agree:
                    assert torch.equal(kept.values[part], wanted[part])
                else:
                    cut_otherwise += 1
                    allowed = 0.5 * kept.gaps()[part] + 1e-6 * kept.scales[part]
                    assert bool(((kept.values[part] - wanted[part]).abs() <= allowed).all())
                    assert kept.values[part].abs().max() == wanted[part].abs().max()
    assert (cut_otherwise > 0) == (dtype == "int8" and (ranks, stage) != (2, 2))


def test_momentum_of_another_dtype_is_refused(folder: str, saved: list[dict]) -> None:
    model = LinearProbe()
    optimizer = CAME(model.parameters())
    names = {param: name for name, param in model.named_parameters()}
    for dtype in LOW:
        with pytest.raises(ValueError, match=f"in torch.{dtype}, and this optimizer keeps it in torch.float32"):
            checkpoint.load(optimizer, names, Path(folder, dtype))


# PyTorch's own, under FSDP2 -------------------------------------------------------------------------------------------------------------


def save_torchs(folder: str) -> dict[str, list[dict[str, Kept]]]:
    """After half the steps, by PyTorch's functions for sharded state; the ends: uninterrupted, and from either form of them."""
    found = {}
    for dtype in LOW:
        model, optimizer, names = sharded(dtype)
        train(model, optimizer, 0, HALF)
        weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
        states = []
        for full in (False, True):
            state = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=full))
            states.append(
                {
                    key: {part: _copied(value) for part, value in values.items()} if key == "state" else values
                    for key, values in state.items()
                }
            )
        dcp.save({"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=Path(folder, dtype))
        train(model, optimizer, HALF, STEPS)
        ends = [kept_by(optimizer, names)]
        for full, state in zip((False, True), states, strict=True):
            model, optimizer, names = sharded(dtype)
            model.load_state_dict(weights)
            set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=full))
            train(model, optimizer, HALF, STEPS)
            ends.append(kept_by(optimizer, names))
        found[dtype] = ends
    return found


def _copied(value: dict) -> dict:
    return {key: tensor.clone() for key, tensor in value.items()}


def load_torchs(folder: str) -> dict[str, str]:
    found = {}
    for dtype in LOW:
        model, optimizer, _ = sharded(dtype)
        state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
        try:
            dcp.load(state, checkpoint_id=Path(folder, dtype))
            set_optimizer_state_dict(model, optimizer, state["optimizer"])
            train(model, optimizer, HALF, STEPS)
            found[dtype] = "went on"
        except BaseException as error:  # torch.distributed.checkpoint's own are not `Exception`s
            found[dtype] = str(error)
    return found


def test_pytorchs_own_state_dicts_restore_it_to_the_bit_on_as_many_ranks_and_refuse_to_on_others(tmp_path: Path) -> None:
    for rank in run_on_ranks(2, save_torchs, str(tmp_path)):
        for dtype in LOW:
            uninterrupted, *others = rank[dtype]
            for other in others:
                assert all(torch.equal(uninterrupted[name].values, other[name].values) for name in uninterrupted)
    for rank in run_on_ranks(3, load_torchs, str(tmp_path)):
        assert rank["bfloat16"] == "went on"
        assert SCALE in rank["int8"] and "ize mismatch" in rank["int8"]


def test_a_part_s_values_are_those_of_its_codes() -> None:
    """What the tests above take the momentum to be."""
    interval = Interval((1000,), 100, 900)
    kept = {MOMENTUM: torch.arange(800).remainder(255).sub(127).to(torch.int8), SCALE: torch.tensor([1.0, 2.0, 3.0, 4.0])}
    edges = bounds(interval)
    mine = Kept(100, 900, kept[MOMENTUM], kept[SCALE].repeat_interleave(edges.diff()), edges)
    assert torch.equal(mine.values, decode(kept, interval))
