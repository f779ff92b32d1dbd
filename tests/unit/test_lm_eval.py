"""An export of ours in EleutherAI's lm-eval (the extra `eval`): its own model class, a task of its own, and the same figures as ours."""

import json
from pathlib import Path

import pytest

from pretrain.evaluate.__main__ import main
from pretrain.export import main as export
from tests.made_runs import GPT2, make_run

METRICS = ("word_perplexity", "byte_perplexity", "bits_per_byte")


def test_lm_eval_finds_the_perplexity_that_we_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import config
    from lm_eval import evaluator
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert export([str(make_run(tmp_path / "run", *GPT2)), "gpt2"]) == 0
    documents = [
        "the cat sees the moon",
        "a dog",
        "the sea is blue and the moon is blue " * 9 + "too",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE} x",
    ]
    Path("text.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))

    model = HFLM(pretrained="gpt2", device="cpu", batch_size=64)
    task = ConfigurableTask(
        config={
            "task": "local",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "text.jsonl"}},
            "test_split": "test",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": metric} for metric in METRICS],
        }
    )
    theirs = evaluator.evaluate(lm=model, task_dict={"local": task}, bootstrap_iters=0)["results"]["local"]

    capsys.readouterr()
    # lm-eval's windows follow each other with one token in common: those of a stride as long as the window
    assert main(["gpt2", "data.paths=[text.jsonl]", "data.cache_dir=cache", "--stride", str(model.max_length), "--format", "json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert model.max_length == ours["max_length"] == 32 and ours["tokens"] > 3 * model.max_length
    assert {metric: ours[metric] for metric in METRICS} == pytest.approx({metric: theirs[f"{metric},none"] for metric in METRICS}, rel=1e-5)
