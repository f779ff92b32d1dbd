"""The same run on any layout: one rank at stage 0 with large micro-batches, two ranks at stage 3 with small ones, the same curve."""

from pathlib import Path

import pytest

from pretrain.metrics import read_metrics
from tests.forked_runs import ForkedRuns

STEPS = 40
COMMON = (
    "data=text",
    "data.paths=[corpus.txt]",
    "data.cache_dir=cache",
    "data.validation_fraction=0.1",
    "tokenizer.vocab_size=400",
    "data.max_seq_length=32",
    "run.dir=runs",
    "run.export=false",
    "tracker=none",
    "model.dropout=0",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.num_heads=2",
    "optimizer=came",
    "optimizer.lr=2e-4",
    "schedule=constant",
    "train.precision=fp32",
    "train.global_batch_size=16",
    f"train.num_steps={STEPS}",
    "train.log_every_steps=1",
    "train.eval_samples=32",
    "train.eval_every_steps=20",
    "train.grad_clip=1.0",
    "train.checkpoint_every_steps=0",
)
FAMILIES = {"bert": ("model=bert_tiny", "objective=mlm_nsp"), "gpt2": ("model=gpt2_tiny", "objective=clm")}
LAYOUTS = {
    "one rank, stage 0": (1, ("zero=stage0", "train.micro_batch_size=16")),
    "two ranks, stage 3": (2, ("zero=stage3", "train.micro_batch_size=2")),
}


def write_corpus(path: Path) -> None:
    """Documents of a small made-up language: enough regularity that a loss falls quickly."""
    subjects, verbs = ["the cat", "a dog", "my bird", "her horse"], ["sees", "likes", "follows", "hears"]
    objects, places = ["the moon", "a river", "old songs", "green hills"], ["at night", "in spring", "by the sea", "near home"]
    documents = []
    for number in range(160):
        picks = [(number * 7 + line * 3 + line * line) % 256 for line in range(8)]
        documents.append("\n".join(f"{subjects[p % 4]} {verbs[p // 4 % 4]} {objects[p // 16 % 4]} {places[p // 64]}." for p in picks))
    path.write_text("\n\n".join(documents))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_curves_of_two_layouts_agree(tmp_path: Path, family: str) -> None:
    write_corpus(tmp_path / "corpus.txt")
    curves = {}
    for number, (layout, (ranks, settings)) in enumerate(LAYOUTS.items()):
        ended = ForkedRuns(tmp_path).run(*COMMON, *FAMILIES[family], *settings, f"run.name=run{number}", ranks=ranks)
        assert ended.codes == [0] * ranks, ended.said
        lines = read_metrics(tmp_path / "runs" / f"run{number}" / "metrics.jsonl")
        curves[layout] = {kind: [line["loss"] for line in lines if line["kind"] == kind] for kind in ("train", "eval")}
    one, two = curves.values()
    assert len(one["train"]) == STEPS and len(one["eval"]) == STEPS // 20
    assert one["train"][0] - sum(one["train"][-5:]) / 5 >= 0.3
    assert one["train"] == pytest.approx(two["train"], rel=1e-4)
    assert one["eval"] == pytest.approx(two["eval"], rel=1e-4)
