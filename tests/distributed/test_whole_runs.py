"""The long ones, for `scripts/test --soak`: the demo to its end, and the paper's batch on a tiny model."""

import pytest

from pretrain.metrics import last, read_metrics

pytestmark = pytest.mark.soak


def test_the_demo_learns_from_context(run_pretrain) -> None:
    """On documents it has not seen, the loss on [MASK] tokens is at least half a nat below what frequencies alone give."""
    done = run_pretrain("run.dir=runs", "data.cache_dir=cache", timeout=1800)
    assert done.returncode == 0, done.stderr
    lines = read_metrics(run_pretrain.folder / "runs" / "demo" / "metrics.jsonl")
    start, final = last(lines, "start"), last(lines, "eval")
    assert final["mask_token_loss"] <= start["unigram_loss"] - 0.5
    assert f"unigram frequencies give {start['unigram_loss']:.4f}" in done.stdout
    assert f"loss on [MASK] tokens {final['mask_token_loss']:.4f}" in done.stdout


def test_three_steps_at_batch_32768(run_pretrain) -> None:
    settings = (
        "+experiment=bert_32k",
        "model=bert_tiny",
        "data=stdlib",
        "data.cache_dir=cache",
        "data.max_seq_length=16",
        "tokenizer.vocab_size=512",
        "train.num_steps=3",
        "train.log_every_steps=1",
        "train.eval_samples=64",
        "launch.num_processes=2",
        "tracker=none",
        "run.dir=runs",
    )
    done = run_pretrain(*settings, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert "micro 16 x accumulation 1024 x ranks 2 = global 32,768" in done.stderr
    lines = read_metrics(run_pretrain.folder / "runs" / "bert_32k" / "metrics.jsonl")
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["samples"] for line in train] == [32768, 65536, 98304]
    assert train[-1]["loss"] < train[0]["loss"] and train[-1]["skipped_steps"] == 0
