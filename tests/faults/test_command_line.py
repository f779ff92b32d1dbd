"""A mistake on the command line: one `error:` line with the mend, exit code 2, nothing written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.__main__ import main

MISTAKES = {
    "train.num_stepz=3": "there is no setting 'train.num_stepz'; did you mean train.num_steps?",
    "train.batch_size=3": "did you mean train.",
    "lr=1": "there is no setting 'lr'; did you mean optimizer.lr?",
    "+foo=1": "there is no setting 'foo'",
    "+train.foo=1": "there is no setting 'train.foo'",
    "optimizer=adamw optimizer.beta3=0.9": "'optimizer.beta3' is not a setting of the chosen optimizer",
    "train.num_steps=abc": "train.num_steps=abc has the wrong type; give a whole number",
    "train.num_steps=1.5": "give a whole number",
    "optimizer.lr=fast": "optimizer.lr=fast has the wrong type; give a number",
    "run.dry_run=maybe": "give true or false",
    "data=text data.paths=a.txt": r"data.paths=a.txt has the wrong type; give a list, each element text: \[first,second\]",
    "tokenizer.vocab_size=big": "give a whole number or null",
    "train=3": "give its settings one by one: train.NAME=VALUE",
    "train.num_steps=-1": "train.num_steps=-1 is not valid; give a number above 0",
    "optimizer.lr=inf": "give a number above 0",
    "train.precision=fp8": "give one of fp32, bf16, fp16",
    "model.num_heads=3": "give a multiple of model.num_heads=3",
    "run.name=a/b": "give a plain folder name",
    "run.resume=perhaps": "give one of auto, must, never",
    "model=gpt5": "model=gpt5 is not known; choose one of bert_base, .*gpt2_xl",
    "zero=3": "zero=3 is not known; choose one of stage0, stage1, stage2, stage3",
    "+experiment=nope": "experiment=nope is not known; choose one of bert_32k, bert_32k_phase2, bert_8k, bert_mini, demo",
    "+experiment=demo experiment=bert_8k": "only one experiment can be run",
    "train.num_steps": "'train.num_steps' is not a setting; write key=value",
    "=3": "'=3' is not a setting",
    "data.paths=[a": r"'data.paths=\[a' cannot be read",
    "optimizer.lr=1e-4,2e-4": "gives several values; give one",
    "~tracker": "cannot be removed; give it another value",
    "run.name=${nowhere}": "run.name: .*nowhere.*; give a plain value",
    "train.micro_batch_size=???": "train.micro_batch_size is not given; add",
    "hydra.run.dir=x": "the run folder is run.dir and run.name",
    "--cfg hydra": "invalid choice: 'hydra'",
    "--config-dir nowhere": "--config-dir nowhere is not a folder",
    "train.global_batch_size=1000 train.micro_batch_size=32 launch.num_processes=4": (
        "train.global_batch_size=1000 is not a multiple of train.micro_batch_size=32 x 4 ranks; give a micro-batch that divides it, or the"
        " nearest global batch: 896, 1024"
    ),
    "run.dry_run=true train.global_batch_size=100 train.micro_batch_size=32 launch.num_processes=4": "nearest global batch: 128$",
    "zero.stage=0 train.precision=bf16": "zero.stage=0 cannot accumulate gradients in fp32; give zero.stage=1",
    "zero.extra.stage=3": "use zero.stage",
    "zero.extra.offload_optimizer=cpu": "use zero.offload=cpu",
    "zero=stage0 zero.offload=cpu": "zero.offload=cpu needs zero.stage=1, 2 or 3; at stage 0 leave it out, or give zero=stage1",
    "zero.offload=nvme": "give one of none, cpu",
    "train.profile_steps=[3]": r"train.profile_steps=\[3\] is not valid; give the first and the last step, as in \[10,13\]",
    "train.memory_snapshot_steps=[5,4]": "train.memory_snapshot_steps=.* is not valid; give the first and the last step",
    "train.memory_snapshot_steps=[1,2]": "train.memory_snapshot_steps needs a GPU, .*; on a CPU leave it out",
    "train.device_peak_tflops=0": "train.device_peak_tflops=0.* is not valid; give a number above 0",
    "train.profile_steps=[0,3]": "within 1 to train.num_steps=[0-9]+",
    "train.profile_steps=[5,4]": "give the first and the last step",
    "train.num_steps=12 train.profile_steps=[10,13]": "within 1 to train.num_steps=12",
    "run.dry_run=true model=gpt2_tiny objective=clm": "tokenizer.vocab_size=192 cannot hold .* bpe .*; give 257 or more",
    "objective=clm": "objective=clm does not train model=bert_tiny; give objective=mlm",
    "data=text": "add data.paths=",
    "train.precision=fp16 zero.stage=1": "train.precision=fp16 needs a GPU; on a CPU give train.precision=bf16",
    "run.dir='~nouserx/runs'": "run.dir=~nouserx/runs begins with a home that this machine does not know; give the whole path",
    "data=text data.paths=['~nouserx/a.txt']": "data.paths: ~nouserx/a.txt begins with a home",
    "data=text data.paths=[a.txt] data.cache_dir='~nouserx'": "data.cache_dir=~nouserx begins with a home",
    "--config ~nouserx/a.yaml": "--config ~nouserx/a.yaml begins with a home",
    "run.dir=/dev/null/runs": "the run folder /dev/null/runs/demo cannot be written .*; give another run.dir",
}


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_with_the_mend(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    code = main(arguments.split())
    output, errors = capfd.readouterr()
    assert (code, output) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", errors), errors
    assert re.search(MISTAKES[arguments], errors.strip()), errors
    assert not list(tmp_path.iterdir())


def test_it_is_so_in_a_process_of_its_own(run_pretrain, one_error_line):
    assert one_error_line(run_pretrain("train.num_stepz=3")).endswith("did you mean train.num_steps?")
    assert not list(run_pretrain.folder.iterdir())


def test_only_one_rank_of_a_machine_speaks(run_pretrain):
    torchrun = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    done = run_pretrain("train.num_stepz=3", **torchrun)
    assert (done.returncode, done.stderr) == (2, "")


HEAVY = {"torch", "transformers", "deepspeed", "datasets", "wandb", "tokenizers"}


def modules_after(*arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command line and the top-level modules that it imported."""
    code = f"import sys; from pretrain.__main__ import main; print(main({list(arguments)!r})); print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    *_, exit_code, modules = done.stdout.splitlines()
    return int(exit_code), set(modules.split())


def test_help_imports_nothing_heavy_not_even_hydra():
    code, modules = modules_after("--help")
    assert code == 0 and not modules & (HEAVY | {"hydra", "omegaconf", "yaml"})


@pytest.mark.parametrize("mistake", ["train.num_stepz=3", "objective=clm"])
def test_a_mistake_in_the_settings_is_answered_without_heavy_imports(mistake: str):
    code, modules = modules_after(mistake)
    assert code == 2 and not modules & HEAVY
