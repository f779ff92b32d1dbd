"""One small run, looked at from all sides: what it writes, that it goes on where it stood, and that the export is the model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from came.checkpoint import load_masters
from pretrain.config.serialise import from_yaml
from pretrain.data.batches import make_batches
from pretrain.data.prepared import open_prepared
from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder
from pretrain.sample import main as sample
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import Ended, ForkedRuns
from tests.wandb_records import recorded, rows, rows_of

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 6
COMMON = (
    "data=text",
    "data.paths=[corpus.txt]",
    "data.cache_dir=cache",
    "data.validation_fraction=0.1",
    "tokenizer.vocab_size=300",
    "data.max_seq_length=32",
    "run.dir=runs",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.dropout=0.1",
    "train.global_batch_size=16",
    "train.micro_batch_size=4",
    f"train.num_steps={STEPS}",
    "train.log_every_steps=2",
    "train.eval_samples=24",
    "train.eval_every_steps=3",
    "train.checkpoint_every_steps=3",
    "optimizer.lr=2e-4",
    "launch.num_processes=2",
)
FAMILIES = {
    "bert": ("model=bert_tiny", "objective=mlm_nsp", "zero=stage2", "train.precision=bf16", "run.name=bert"),
    "gpt2": ("model=gpt2_tiny", "objective=clm", "zero=stage3", "train.precision=fp32", "run.name=gpt2"),
}


class Runs:
    """The finished runs of both families, in one folder: BERT by the command itself, GPT-2 on ranks that somebody else has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_corpus(folder / "corpus.txt")
        done, ended = self.command(*FAMILIES["bert"]), self.forked(*FAMILIES["gpt2"])
        assert done.returncode == 0 and ended.codes == [0, 0], done.stderr + ended.said
        self.errors = {"bert": done.stderr, "gpt2": ended.said}
        self.output = {"bert": done.stdout, "gpt2": ended.said}

    def forked(self, *settings: str) -> Ended:
        return ForkedRuns(self.folder).run(*COMMON, *settings)

    def command(self, *settings: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        command = [sys.executable, *(launcher or ("-m", "pretrain")), *COMMON, *settings]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)

    def run_folder(self, family: str) -> RunFolder:
        return RunFolder(self.folder / "runs" / family)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_it_prints_its_plan_and_where_everything_is(runs: Runs, family: str) -> None:
    folder, errors, output = runs.run_folder(family), runs.errors[family], runs.output[family]
    assert "micro 4 x accumulation 2 x ranks 2 = global 16; 512 tokens per step at length 32" in errors
    assert "accumulation fp32; communication fp32" in errors
    for place in ("metrics.jsonl", "checkpoints/step_00000006", "export", "wandb"):
        assert f"runs/{family}/{place}" in output
        assert (folder.path / place).exists()
    assert "unigram frequencies give" in output


@families
def test_metrics_hold_what_was_promised(runs: Runs, family: str) -> None:
    lines = read_metrics(runs.run_folder(family).metrics)
    saved = [line for line in lines if line["kind"] == "checkpoint"]
    assert [(line["kind"], line["step"]) for line in lines if line not in saved] == [
        ("start", 0),
        ("memory", 0),
        ("startup", 1),
        ("memory", 1),
        ("train", 1),
        ("train", 2),
        ("eval", 3),
        ("train", 4),
        ("memory", 6),
        ("train", 6),
        ("eval", 6),
        ("end", 6),
    ]
    assert [(line["step"], line["samples"]) for line in saved] == [(3, 3 * 16), (6, 6 * 16)]  # each as soon as it is written
    assert all(line["save_seconds"] > line["copy_seconds"] > 0 and line["bytes"] > 0 for line in saved)
    train = last(lines, "train")
    assert train["samples"] == STEPS * 16 and train["tokens"] == STEPS * 16 * 32 and train["skipped_steps"] == 0
    measured = (
        "loss",
        "lr",
        "grad_norm",
        "update_rms",
        "wall_seconds",
        "step_seconds",
        "data_seconds",
        "forward_seconds",
        "backward_seconds",
        "communication_seconds",
        "optimizer_seconds",
        "other_seconds",
        "tokens_per_second",
        "confidence_mean",
        "confidence_std",
    )
    memory = ("memory_peak_bytes", "memory_params_bytes", "memory_grads_bytes", "memory_optimizer_bytes")
    assert all(train[name] > 0 for name in measured + memory)
    assert 0 <= train["clip_share"] <= 1 and "activations_bytes" not in train
    assert train["mfu"] is None  # no stated peak for a CPU
    assert train["memory_optimizer_bytes"] == last(lines, "start")["plan"]["optimizer_state_bytes"]
    scores = {"bert": ("mlm_loss", "mlm_accuracy", "mask_token_loss", "nsp_accuracy"), "gpt2": ("perplexity",)}[family]
    assert all(last(lines, "eval")[name] > 0 for name in ("loss", *scores))
    assert 0 < last(lines, "start")["unigram_loss"] < np.log(400)
    assert last(lines, "start")["versions"]["torch"] == torch.__version__ and "git" in last(lines, "start")


def test_the_time_to_the_first_step_is_stated_by_part(runs: Runs) -> None:
    folder = runs.run_folder("bert")
    line = last(read_metrics(folder.metrics), "startup")
    parts = {name: value for name, value in line.items() if name.endswith("_seconds") and name != "wall_seconds"}
    assert list(parts)[:4] == ["python_seconds", "settings_seconds", "prepared_data_seconds", "processes_seconds"]
    assert list(parts)[-2:] == ["first_batch_seconds", "first_step_seconds"]
    assert all(value >= 0 for value in parts.values()) and parts["imports_seconds"] > 0.5
    (said,) = [text for text in runs.errors["bert"].splitlines() if text.startswith("first step begun ")]
    assert f" and done {sum(parts.values()):.1f} s after the command: " in said
    assert "first step begun" not in (folder.logs / "rank_1.log").read_text()


@families
def test_the_export_is_the_model(runs: Runs, family: str) -> None:
    """Loaded by transformers' own classes, it gives the run's validation loss; the run evaluated in its own precision."""
    from transformers import AutoModelForCausalLM, AutoModelForPreTraining, AutoTokenizer

    folder = runs.run_folder(family)
    config = from_yaml(folder.config.read_text())
    kind = {"bert": "wordpiece", "gpt2": "bpe"}[family]
    (cached,) = (path for path in (runs.folder / "cache").glob(f"text-{kind}-*") if path.is_dir())
    prepared = open_prepared(cached)
    batches = make_batches(prepared, "valid", config.objective, 32, config.run.seed)
    loader = AutoModelForCausalLM if family == "gpt2" else AutoModelForPreTraining
    model, report = loader.from_pretrained(folder.export, output_loading_info=True)
    model.eval()
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.num_parameters() == last(read_metrics(folder.metrics), "start")["plan"]["parameters"]

    sums, counts = {}, {}

    def add(name: str, scores: torch.Tensor, labels: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float(torch.nn.functional.cross_entropy(scores, labels, ignore_index=-100, reduction="sum"))
        counts[name] = counts.get(name, 0) + int((labels != -100).sum())

    samples = {name: torch.from_numpy(values) for name, values in batches.batch(np.arange(24)).items()}
    for start in range(0, 24, 4):
        batch = {name: values[start : start + 4] for name, values in samples.items()}
        with torch.no_grad():
            if family == "gpt2":
                add("clm", model(batch["input_ids"]).logits.flatten(0, 1), batch["labels"].flatten())
                continue
            found = model(batch["input_ids"], attention_mask=batch["attention_mask"], token_type_ids=batch["token_type_ids"])
        rows = torch.arange(len(batch["input_ids"])).unsqueeze(-1)
        add("mlm", found.prediction_logits[rows, batch["masked_positions"]].flatten(0, 1), batch["masked_labels"].flatten())
        add("nsp", found.seq_relationship_logits, batch["next_sentence_label"])
    loss = sum(sums[name] / counts[name] for name in sums)
    tolerance = {"bert": 2e-2, "gpt2": 1e-5}[family]  # the bf16 run rounds its weights and activations to 8 bits; the export does not
    assert last(read_metrics(folder.metrics), "eval")["loss"] == pytest.approx(loss, rel=tolerance)

    tokenizer = AutoTokenizer.from_pretrained(folder.export)
    assert len(tokenizer) == prepared.vocab_size
    assert tokenizer.decode(tokenizer("the cat sees the moon")["input_ids"], skip_special_tokens=True) == "the cat sees the moon"


def test_a_run_goes_on_bit_for_bit_where_it_was_stopped(runs: Runs) -> None:
    """Thrown back to the checkpoint of step 3, dropout on: the same command reaches the same final weights."""
    folder = runs.run_folder("bert")
    final = folder.checkpoint(STEPS)
    wanted, wanted_lines = load_masters(final), read_metrics(folder.metrics)
    shutil.rmtree(final)
    (folder.checkpoints / "latest").write_text(folder.checkpoint(3).name)
    kept = [line for line in folder.metrics.read_text().splitlines() if json.loads(line)["kind"] != "end"]
    folder.metrics.write_text("\n".join(kept) + '\n{"kind": "train", "st')  # as a killed process leaves it

    ended = runs.forked(*FAMILIES["bert"])
    assert ended.codes == [0, 0], ended.said
    assert "going on from step 3" in ended.said and ended.said.count("first step begun ") == 1
    found = load_masters(final)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)

    lines = read_metrics(folder.metrics)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [line["step"] for line in wanted_lines if line["kind"] == "train"]
    assert last(lines, "eval")["loss"] == last(wanted_lines, "eval")["loss"]
    assert [line["step"] for line in lines if line["kind"] == "startup"] == [1, 4]  # each process's own first step


def test_a_finished_run_says_so(runs: Runs) -> None:
    before = runs.run_folder("gpt2").metrics.read_text()
    done = runs.command(*FAMILIES["gpt2"])
    assert done.returncode == 0 and "is already finished" in done.stdout and "perplexity" in done.stdout
    assert runs.run_folder("gpt2").metrics.read_text() == before


def test_other_mathematics_in_the_same_folder_is_refused(runs: Runs, one_error_line) -> None:
    message = one_error_line(runs.command(*FAMILIES["gpt2"], "optimizer.lr=1e-3", "train.num_steps=9"))
    assert "optimizer.lr: 0.0002 -> 0.001" in message and "train.num_steps: 6 -> 9" in message and "run.name" in message


@pytest.mark.parametrize(
    ("settings", "mend"),
    [(("run.resume=never",), "give another run.name"), (("run.resume=must", "run.name=other"), "holds no run")],
    ids=["never", "must"],
)
def test_resume_does_what_it_says(runs: Runs, one_error_line, settings: tuple[str, ...], mend: str) -> None:
    assert mend in one_error_line(runs.command(*FAMILIES["gpt2"], *settings))


def test_torchrun_gives_the_same_metrics(runs: Runs) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "pretrain")
    done = runs.command(*FAMILIES["gpt2"], "run.name=torchrun", "tracker=none", launcher=launcher)
    assert done.returncode == 0, done.stderr
    losses = [
        [line["loss"] for line in read_metrics(runs.run_folder(name).metrics) if line["kind"] in ("train", "eval")]
        for name in ("gpt2", "torchrun")
    ]
    assert losses[0] == losses[1]


@families
def test_the_run_can_be_sampled_from_with_and_without_its_export(
    runs: Runs, family: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs.folder)  # its cache_dir is relative
    prompt = {"bert": "the cat [MASK] the moon", "gpt2": "the cat"}[family]
    folder = runs.run_folder(family)

    def said(path: Path) -> str:
        assert sample([str(path), prompt]) == 0
        return capsys.readouterr().out

    wanted = said(folder.export)
    assert said(folder.path) == wanted and len(wanted) > len(prompt)
    folder.export.rename(runs.folder / "elsewhere")
    assert said(folder.path) == wanted
    (runs.folder / "elsewhere").rename(folder.export)


def test_the_offline_wandb_runs_hold_what_the_metrics_hold(runs: Runs) -> None:
    for family in FAMILIES:
        folder = runs.run_folder(family)
        lines = [json.loads(text) for text in folder.metrics.read_text().splitlines() if text.endswith("}")]
        begun = max(place for place, line in enumerate(lines) if line["kind"] in ("start", "resume"))
        assert rows(recorded(folder.path)[-1]) == rows_of(lines[begun:])
