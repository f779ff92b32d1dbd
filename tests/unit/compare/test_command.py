"""The command line of python -m pretrain.compare: what it refuses, and what it answers at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.compare.__main__ import main
from tests.made_comparison import SETTINGS, THREE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("optimizer=came", "optimizer=came: a comparison sets optimizer itself; give compare.optimizers=[came,adamw]"),
        ("optimizer.lr=1e-3", "a comparison sets optimizer.lr itself; give compare.lrs.NAME=[1e-4,2e-4]"),
        ("compare.optimizers=[came,adam]", "compare.optimizers: there is no 'adam'; choose of adamw, came"),
        ("compare.optimizers=[came,came]", "compare.optimizers=[...,came,...,came] is not valid; give each once"),
        ("compare.optimizers=[]", "compare.optimizers=[] is not valid; give at least one"),
        ("compare.seeds=0", "compare.seeds=0 is not valid; give how many (1 or more), or a list of different seeds"),
        ("compare.seeds=[1,1]", "compare.seeds=[1, 1] is not valid"),
        ("compare.rates=0", "compare.rates=0 is not valid; give a number above 0"),
        ("compare.rates=x", "compare.rates=x has the wrong type"),
        ("compare.lrs.came=[0]", "compare.lrs.came=[0] is not valid; give different numbers above 0"),
        ("compare.lrs.came=fast", "compare.lrs.came=fast is not valid; give different numbers above 0"),
        ("compare.lrs.lion=[1e-3]", "compare.lrs.lion: lion is not among compare.optimizers"),
        ("compare.variants.x=[optimizer=came,optimizer.beta1=0.8]", "compare.variants.x: x is not among compare.optimizers, came, adamw"),
        ("compare.grid=3", "there is no setting 'compare.grid'; compare has name, optimizers, seeds"),
        ("compare.variants.x=[optimizer.beta1=0.8] compare.optimizers=[x]", "compare.variants.x chooses no optimizer; add optimizer=NAME"),
        *(
            (
                f"compare.variants.x=[optimizer=came,{setting}] compare.optimizers=[came,x]",
                f"{setting} would make its runs unequal to the others",
            )
            for setting in (
                "train.num_steps=80",
                "schedule=cosine",
                "train.eval_samples=16",
                "data.paths=x",
                "run.init_from=y",
                "zero=stage1",
            )
        ),
        (
            "compare.variants.x=[optimizer=came,optimizer.lr=1e-5] compare.optimizers=[came,x]",
            "compare.variants.x: a comparison sets optimizer.lr itself; give compare.lrs.x=[1e-4,2e-4]",
        ),
        ("compare.variants.a/b=[optimizer=came]", "compare.variants='a/b' is not valid; give names of letters"),
        ("compare.seeds=[0,99999999999999999999]", "compare.seeds=[0, 99999999999999999999] is not valid"),
        ("compare.seeds=[0,1] run.seed=3", "run.seed=3: a comparison sets run.seed itself; give all of them in compare.seeds"),
        ("run.dry_run=true", "run.dry_run=true: a comparison sets run.dry_run itself; give --dry-run"),
        ("train.micro_batch_size=auto", "train.micro_batch_size=auto may find another one for each optimizer"),
        ("compare.optimizers=[adamw,adamw_beta2_0.999]", "adamw and adamw_beta2_0.999 are the same optimizer with these settings"),
        ("compare.variants.x=[optimizer=came,optimizer.gamma=1] compare.optimizers=[x]", "in x: there is no setting 'optimizer.gamma'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(settings: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([f"run.dir={tmp_path}", *SETTINGS, *settings.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is to be compared is not said"),
        (["--table", "nowhere"], "nowhere holds no comparison (no comparison.yaml)"),
        (["run.seed=1", "--table", "nowhere"], "--table starts no runs; leave run.seed=1 out"),
        (["--format", "csv", "run.seed=1"], "--format goes with --table DIR"),
    ],
)
def test_mistakes_in_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_says_what_is_to_come_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([f"run.dir={tmp_path}", *SETTINGS, *THREE, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "9 runs to come: came 0.0002, 0.0004, 0.0008; adamw" in printed and "at most 9 runs more" in printed
    assert not list(tmp_path.iterdir())


def test_help_and_the_list_of_variants_import_nothing_heavy():
    code = "import sys; from pretrain.compare.__main__ import main; main(['--variants']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "came_bias_correction_trust_ratio" in done.stdout
    assert not {"torch", "transformers", "hydra", "numpy"} & set(done.stdout.splitlines()[-1].split())
