"""A lab's way: a mixture prepared ahead of time, moved, and trained on without the corpus."""

import json
import shutil

from pretrain.metrics import last, read_metrics
from tests.forked_runs import ForkedRuns
from tests.unit.data.corpora import english

RUN = (
    "data=prepared",
    "data.path=moved",
    "data.max_seq_length=32",
    "train.global_batch_size=16",
    "train.micro_batch_size=4",
    "train.num_steps=4",
    "train.log_every_steps=2",
    "train.eval_samples=16",
    "train.checkpoint_every_steps=2",
    "launch.num_processes=2",
    "tracker=none",
    "run.dir=runs",
    "run.export=false",
    "tokenizer.vocab_size=null",
)


def test_a_mixture_is_prepared_moved_and_trained_on(fork_pretrain) -> None:
    folder = fork_pretrain.folder
    for name in ("wiki", "books"):
        (folder / name).mkdir()
        records = [json.dumps({"text": document}) for document in english(60, seed=len(name)).split("\n\n")]
        (folder / name / "0.jsonl").write_text("\n".join(records))
    mixture = ["data=mixture", *(f"data.mixture.{name}.paths=[{name}/]" for name in ("wiki", "books")), "data.mixture.wiki.weight=3"]
    done = fork_pretrain(*mixture, "tokenizer.vocab_size=150", "-o", "made", module="pretrain.prepare")
    assert done.returncode == 0 and "prepared in made: " in done.stdout, done.stderr
    (folder / "made").rename(folder / "moved")
    for name in ("wiki", "books"):
        shutil.rmtree(folder / name)
    verified = fork_pretrain("data=prepared", "data.path=moved", "--verify", module="pretrain.prepare")
    assert verified.returncode == 0 and "files match their checksums" in verified.stdout, verified.stderr

    ended = ForkedRuns(folder).run(*RUN)
    assert ended.codes == [0, 0], ended.said
    train = [line for line in read_metrics(folder / "runs" / "demo" / "metrics.jsonl") if line["kind"] == "train"]
    assert [(line["samples_from_wiki"], line["samples_from_books"]) for line in train] == [(12, 4), (24, 8), (48, 16)]
    start = last(read_metrics(folder / "runs" / "demo" / "metrics.jsonl"), "start")
    assert start["plan"]["epochs"].keys() == {"wiki", "books"} and "epochs: wiki " in ended.said
    assert start["sources"] == ["wiki", "books"]


def test_weights_that_fit_no_source_are_refused(fork_pretrain) -> None:
    (fork_pretrain.folder / "text.txt").write_text(english(40))
    made = fork_pretrain("data=text", "data.paths=[text.txt]", "tokenizer.vocab_size=150", "-o", "moved", module="pretrain.prepare")
    assert made.returncode == 0, made.stderr
    for wrong in ("data.weights.web=1", "data.weights.wiki=0"):
        done = fork_pretrain(*RUN, wrong)
        assert done.returncode == 2 and "error: data.weights" in done.stderr, done.stderr
        assert not (fork_pretrain.folder / "runs").exists()
