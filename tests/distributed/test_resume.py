"""A run goes on at other ranks, stages and micro-batches: the curve is the uninterrupted one's to rounding, and what changed is noted."""

import pytest

from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder
from tests.distributed.test_layout_invariance import write_corpus
from tests.faults.fault_points import in_the_middle_of_a_step
from tests.forked_runs import SMALL, ForkedRuns

COMMAND = (*SMALL, "model.dropout=0", "optimizer.lr=2e-4", "train.grad_clip=1.0")
FIRST = ("zero=stage2", "train.micro_batch_size=2")
LATER = {
    "one rank, stage 0": (1, ("zero=stage0", "train.micro_batch_size=8")),
    "four ranks, stage 3": (4, ("zero=stage3", "train.micro_batch_size=1")),
    "two ranks, stage 1, host's memory": (2, ("zero=stage1", "zero.offload=cpu", "train.micro_batch_size=1")),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> ForkedRuns:
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.txt")
    return ForkedRuns(folder)


def folder_of(runs: ForkedRuns, name: str) -> RunFolder:
    return RunFolder(runs.folder / "runs" / name)


def losses(folder: RunFolder) -> list[float]:
    return [line["loss"] for line in read_metrics(folder.metrics) if line["kind"] in ("train", "eval")]


@pytest.fixture(scope="module")
def undisturbed(runs: ForkedRuns) -> list[float]:
    ended = runs.run(*COMMAND, *FIRST, "run.name=undisturbed")
    assert ended.codes == [0, 0], ended.said
    return losses(folder_of(runs, "undisturbed"))


@pytest.mark.parametrize("later", LATER)
def test_another_layout_goes_on_with_the_same_curve(runs: ForkedRuns, undisturbed: list[float], later: str) -> None:
    name = f"run.name=to_{later.split(',')[0].replace(' ', '_')}"
    folder = folder_of(runs, name.removeprefix("run.name="))
    assert runs.run(*COMMAND, *FIRST, name, fault=in_the_middle_of_a_step).codes == [-9, -9]
    ranks, settings = LATER[later]
    ended = runs.run(*COMMAND, *settings, name, ranks=ranks)
    assert ended.codes == [0] * ranks, ended.said
    assert losses(folder) == pytest.approx(undisturbed, rel=2e-5)
    resume = last(read_metrics(folder.metrics), "resume")
    assert resume is not None and resume["ranks"] == ranks
    assert f"zero.stage: 2 -> {settings[0][-1]}" in resume["changed"] and f"zero.stage: 2 -> {settings[0][-1]}" in ended.said
    assert ("ranks: 2 -> 1" in ended.said) == (ranks == 1)


def test_mathematics_are_not_changed_on_the_way(runs: ForkedRuns, undisturbed: list[float]) -> None:
    ended = runs.run(*COMMAND, *FIRST, "run.name=undisturbed", "optimizer.beta1=0.8", "train.global_batch_size=16", "zero=stage3")
    assert ended.codes == [2, 2]
    (error,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert "optimizer.beta1: 0.9 -> 0.8" in error and "train.global_batch_size: 8 -> 16" in error and "zero" not in error


def test_momentum_in_8_bits_goes_on_to_the_bit_and_in_no_other_dtype(runs: ForkedRuns) -> None:
    low = (*COMMAND, *FIRST, "optimizer.momentum_dtype=int8")
    whole, cut = (folder_of(runs, name) for name in ("whole_int8", "cut_int8"))
    assert runs.run(*low, "run.name=whole_int8").codes == [0, 0]
    assert runs.run(*low, "run.name=cut_int8", fault=in_the_middle_of_a_step).codes == [-9, -9]
    assert runs.run(*low, "run.name=cut_int8").codes == [0, 0]
    assert last(read_metrics(cut.metrics), "resume") is not None
    assert losses(cut) == losses(whole)
    start, train = (last(read_metrics(whole.metrics), kind) for kind in ("start", "train"))
    assert start is not None and train is not None
    assert train["memory_optimizer_bytes"] == start["plan"]["optimizer_state_bytes"]
    assert "memory_optimizer_exp_avg_bytes" in train and "memory_optimizer_exp_avg_scale_bytes" not in train  # scales count with codes
    ended = runs.run(*COMMAND, *FIRST, "optimizer.momentum_dtype=bfloat16", "run.name=cut_int8")
    assert ended.codes == [2, 2] and "optimizer.momentum_dtype: int8 -> bfloat16" in ended.said
