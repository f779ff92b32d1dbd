"""A new run's masters are those that it begins with, to the bit, at every stage, on two ranks, in fp32 and bf16."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from came.checkpoint import load_masters
from came.layouts import verify
from came.verify.probe import Piece, pieces
from came.verify.ranks import run_on_ranks
from pretrain import distributed, initial_weights
from pretrain.batch_plan import BatchPlan
from pretrain.config.compose import compose
from pretrain.engine import Engine
from pretrain.export import main as export
from pretrain.metrics import last, read_metrics
from pretrain.model.build import build_model, vocabulary_in
from pretrain.optim import build_optimizer
from pretrain.run_folder import RunFolder
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL, ForkedRuns
from tests.made_runs import BERT, TINY, checkpoint_of, hash_of, make_run

LAYOUTS = {
    "stage 0": ("zero=stage0", "train.precision=fp32"),
    "stage 1": ("zero=stage1", "train.precision=bf16"),
    "stage 2": ("zero=stage2", "train.precision=bf16"),
    "stage 3": ("zero=stage3", "train.precision=bf16"),
    "in the host's memory": ("zero=stage2", "train.precision=bf16", "zero.offload=cpu"),
}
OBJECTIVES = ("mlm_nsp", "mlm")
ENGINES = [(layout, "mlm_nsp") for layout in LAYOUTS] + [("stage 3", "mlm")]
"""(layout, objective of the new run)"""
CELLS = [(engine, form, source) for engine in ENGINES for form in ("run", "export") for source in OBJECTIVES]
"""(engine, what is given, objective of the source)"""


def begin(folder: str) -> dict[tuple, tuple[list[Piece], list[Piece]]]:
    """This rank's masters before and after the weights came, for every cell."""
    found = {}
    tokenizer = Path(folder, "run", "mlm_nsp", "tokenizer")
    vocabulary = vocabulary_in(tokenizer)
    for layout, objective in ENGINES:
        config = compose([*BERT, *LAYOUTS[layout], f"objective={objective}", "run.seed=7"])
        torch.manual_seed(config.run.seed)
        model = build_model(config, vocabulary)
        batch = BatchPlan.make(config.train.global_batch_size, config.train.micro_batch_size, distributed.world_size())
        engine = Engine(model, build_optimizer(config.optimizer, model), config, batch)
        drawn = pieces(engine.optimizer, engine.names)
        masters = [(place.handed.detach(), place.handed.detach().clone()) for place in engine.optimizer.places()]
        for _, form, source in [cell for cell in CELLS if cell[0] == (layout, objective)]:
            for master, values in masters:
                master.copy_(values)
            given = replace(config, run=replace(config.run, init_from=f"{folder}/{form}/{source}"))
            weights = initial_weights.find(given, vocabulary, hash_of(tokenizer))
            assert weights is not None
            weights.load(engine)
            for place in engine.optimizer.places():
                verify(place.layout, place.handed, place.shards)  # the model's own weights follow
            found[(layout, objective), form, source] = (drawn, pieces(engine.optimizer, engine.names))
        engine.destroy()
    return found


def whole(pieces_by_rank: list[list[Piece]]) -> dict[str, Tensor]:
    """Every parameter, flat; each element must be there."""
    held = [piece for pieces_ in pieces_by_rank for piece in pieces_]
    found = {
        name: torch.full((max(piece.stop for piece in held if piece.name == name),), torch.nan) for name in {piece.name for piece in held}
    }
    for piece in held:
        found[piece.name][piece.start : piece.stop] = piece.values
    assert not any(bool(tensor.isnan().any()) for tensor in found.values())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for objective in OBJECTIVES:
        made = make_run(folder / "run" / objective, *BERT, f"objective={objective}")
        assert export([str(made), str(folder / "export" / objective)]) == 0
    return folder


@pytest.fixture(scope="module")
def begun(folder: Path) -> list[dict[tuple, tuple[list[Piece], list[Piece]]]]:
    return run_on_ranks(2, begin, str(folder))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell[0][0]}, {cell[0][1]} from the {cell[1]} of {cell[2]}")
def test_masters_are_the_source_s_to_the_bit(folder: Path, begun: list, cell: tuple) -> None:
    (_, objective), _, source = cell
    drawn, found = (whole([by_rank[cell][when] for by_rank in begun]) for when in (0, 1))
    given = load_masters(checkpoint_of(folder / "run" / source))
    assert found.keys() == drawn.keys() and len(found.keys() & given.keys()) > 30
    assert {name for name in found.keys() - given.keys() if "pooler" not in name and "seq_relationship" not in name} == set()
    assert bool(found.keys() - given.keys()) == (source == "mlm" and objective == "mlm_nsp")
    for name, values in found.items():
        assert torch.equal(values, given.get(name, drawn[name])), name
        assert name not in given or not torch.equal(values, drawn[name]), name


def test_a_run_begins_with_them_records_them_and_goes_on_without_them(tmp_path: Path) -> None:
    """At a learning rate at which no weight moves, the new run's final masters are the source's."""
    write_corpus(tmp_path / "corpus.txt")
    source = make_run(tmp_path / "source", *BERT, texts=["the cat sees the moon at night"] * 9)
    runs, run = ForkedRuns(tmp_path), RunFolder(tmp_path / "runs" / "new")
    settings = (*SMALL, *TINY, "model=bert_tiny", "objective=mlm_nsp", "run.name=new", "run.init_from=source", "optimizer.lr=1e-30",
                "zero=stage2", "train.precision=bf16", "train.num_steps=2", "train.checkpoint_every_steps=1")  # fmt: skip
    ended = runs.run(*settings, "tokenizer.vocab_size=60")
    assert ended.codes == [2, 2] and "Traceback" not in ended.said
    assert "error: run.init_from: the weights in source/checkpoints/step_00000004 were trained with another vocabulary" in ended.said
    assert not run.path.exists()

    ended = runs.run(*settings, "tokenizer.path=source/tokenizer", "tokenizer.vocab_size=null")
    assert ended.codes == [0, 0], ended.said
    assert "from  the weights of source; optimizer and schedule begin anew" in ended.said
    assert ended.said.count("begins with the weights of step 4 in source/checkpoints/step_00000004\n") == 1
    origin = last(read_metrics(run.metrics), "start")["init_from"]
    assert (origin["path"], origin["step"]) == ("source", 4)
    assert hash_of(run.tokenizer) == hash_of(source / "tokenizer")
    wanted, found = load_masters(checkpoint_of(source)), load_masters(run.checkpoint(2))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)

    shutil.rmtree(run.checkpoint(2))
    (run.checkpoints / "latest").write_text(run.checkpoint(1).name)
    run.metrics.write_text("".join(line for line in run.metrics.read_text().splitlines(keepends=True) if '"end"' not in line))
    source.rename(tmp_path / "gone")
    ended = runs.run(*settings, "tokenizer.path=gone/tokenizer", "tokenizer.vocab_size=null")
    assert ended.codes == [0, 0] and "going on from step 1" in ended.said and "begins with" not in ended.said, ended.said
    assert run.checkpoint(2).exists()
