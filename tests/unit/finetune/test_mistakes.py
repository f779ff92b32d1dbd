"""What cannot be is one line with the mend, exit code 2, and nothing is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.config.finetuning import known_settings, read_finetuning
from pretrain.config.schema import CameConfig
from pretrain.config.schema.finetune import TASK_NAMES
from pretrain.finetune.__main__ import main
from pretrain.finetune.tasks import GLUE_TASKS
from tests.made_runs import BERT, GPT2, make_run
from tests.unit.finetune.made_tasks import write_squad, write_task

MISTAKES = {
    "": "no model is given; name one first: python -m pretrain.finetune runs/NAME",
    "task=rte": "no model is given",
    "RUN": "no task is given; add task= one of sst2, mrpc",
    "RUN task=glue": "task=glue is not known; choose one of sst2",
    "RUN rte": "'rte' is not a setting; write key=value",
    "RUN task=rte finetune.num_epoch=3": r"there is no setting 'finetune.num_epoch'; did you mean finetune.num_epochs\?",
    "RUN task=rte lr=1e-3": r"there is no setting 'lr'; did you mean optimizer.lr\?",
    "RUN task=rte xyz.abc=1": "there is no setting 'xyz.abc'; --help lists",
    "RUN task=rte optimizer.beta3=0.9": "'optimizer.beta3' is not a setting of optimizer=adamw; it has lr, weight_decay, beta1, beta2, eps",
    "RUN task=rte optimizer=adam": "optimizer=adam is not known; choose one of came, adamw",
    "RUN task=rte optimizer.name=came": "optimizer.name is set by its group; give optimizer=...",
    "RUN task=rte optimizer=lamb": "no learning rate is usual for fine-tuning with optimizer=lamb; add optimizer.lr",
    "RUN task=rte finetune.seeds=3": "finetune.seeds=3 has the wrong type; give a list, each element a whole number",
    "RUN task=rte finetune.seeds=[1,1]": r"finetune.seeds=\[1,1\] is not valid; give different whole numbers",
    "RUN task=rte finetune.seeds=[]": "give different whole numbers",
    "RUN task=rte finetune.num_epochs=1.5": "give a whole number",
    "RUN task=rte finetune.num_epochs=0": "finetune.num_epochs=0 is not valid; give a number above 0",
    "RUN task=rte finetune.from_scratch=perhaps": "give true or false",
    "RUN task=rte finetune.dropout=1": r"finetune.dropout=1.0 is not valid; give a number in \[0, 1\)",
    "RUN task=rte finetune.max_steps=many": "give a whole number or null",
    "RUN task=rte finetune.doc_stride=3": "finetune.doc_stride=3 is not valid; give it with task=squad",
    "RUN task=rte optimizer.lr=nan": "optimizer.lr=nan is not valid; give a number above 0",
    "RUN task=rte schedule=step": "schedule=step is not known; choose one of linear",
    "RUN task=rte schedule.warmup_ratio=1": "schedule.warmup_ratio=1.0 is not valid",
    "RUN task=rte finetune.data_dir=nowhere": "finetune.data_dir=nowhere holds no train.tsv",
    "RUN task=rte finetune.data_dir=~nouserx/glue": "finetune.data_dir=~nouserx/glue begins with a home that this machine does not know",
    "~nouserx/run task=rte finetune.data_dir=RTE": "~nouserx/run begins with a home that this machine does not know",
    "RUN task=rte finetune.data_dir=RTE finetune.device=abacus": "finetune.device=abacus cannot be used here .*; give cpu or auto",
    "RUN task=rte finetune.data_dir=RTE finetune.max_seq_length=33": "max_seq_length=33 is more than the model's 32 positions; give 32",
    "RUN task=rte finetune.data_dir=RTE finetune.output_dir=/proc/out": "/proc/out cannot be written",
    "nowhere/at/all task=rte finetune.data_dir=RTE": "there is no folder nowhere/at/all",
    "no-such/model task=rte finetune.data_dir=RTE": "no-such/model is no folder here and cannot be had from the hub",
    "RTE task=rte finetune.data_dir=RTE": "RTE holds neither a run nor a model",
    "BROKEN task=rte finetune.data_dir=RTE": "BROKEN holds no whole encoder in Hugging Face format",
    "ENDLESS task=rte finetune.data_dir=RTE": "the model in ENDLESS states no max_position_embeddings in its config.json",
    "GPT2 task=rte finetune.data_dir=RTE": "holds a model that continues text, such as GPT-2; fine-tuning takes an encoder",
    "RUN task=rte --format markdown": "--format markdown is for --table; leave it out",
    "RUN --table RTE": "--table shows results that there are, but RUN is given",
    "RUN task=rte --nonsense": "see python -m pretrain.finetune --help",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    make_run(folder / "RUN", *BERT, steps=(2,))
    make_run(folder / "GPT2", *GPT2, steps=(2,))
    write_task(folder / "RTE", "rte")
    (folder / "BROKEN").mkdir()
    (folder / "BROKEN" / "config.json").write_text('{"model_type": "bert"}')
    (folder / "ENDLESS").mkdir()
    (folder / "ENDLESS" / "config.json").write_text('{"model_type": "t5"}')
    return folder


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_with_the_mend(
    arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.rglob("*"))
    code = main(arguments.split())
    output, errors = capfd.readouterr()
    assert (code, output) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", errors) and re.search(MISTAKES[arguments], errors), errors
    assert set(folder.rglob("*")) == before


def test_windows_that_bring_nothing_new_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squad = write_squad(tmp_path / "squad")
    assert main([str(folder / "RUN"), "task=squad", f"finetune.data_dir={squad}", "finetune.doc_stride=19"]) == 2
    assert (
        "leaves windows of finetune.max_seq_length=16 tokens nothing new beside the question; give less than 8" in capsys.readouterr().err
    )


def test_settings_are_read_as_they_are_meant() -> None:
    config = read_finetuning(
        "task=cola finetune.seeds=[0,1,2] +finetune.data_dir=a=b finetune.max_steps=null finetune.save=True optimizer=came "
        "optimizer.lr=1e-4 optimizer.lr=2e-4 schedule=cosine schedule.warmup_ratio=0".split()
    )
    assert (config.task, config.finetune.seeds, config.finetune.data_dir) == ("cola", [0, 1, 2], "a=b")
    assert config.finetune.max_steps is None and config.finetune.save is True
    assert config.optimizer == CameConfig(lr=2e-4) and (config.schedule.kind, config.schedule.warmup_ratio) == ("cosine", 0.0)
    assert read_finetuning(["task=cola"]).optimizer.lr == 5e-5
    assert set(TASK_NAMES) == {*GLUE_TASKS, "squad"}


def test_help_imports_nothing_heavy_and_names_every_setting() -> None:
    code = "import sys; from pretrain.finetune.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.strip().rpartition("\n")
    assert not {"torch", "transformers", "omegaconf", "numpy"} & set(modules.split())
    section = text.partition("settings (key=value):")[2]
    named = set(re.findall(r"[a-z_]+\.?[a-z_]*", section)) | {f"finetune{short}" for short in re.findall(r"\.[a-z_]+", section)}
    wanted = [name for name in known_settings() if not name.startswith(("optimizer.", "schedule."))]
    assert not [name for name in [*wanted, "optimizer.lr", "schedule.warmup_ratio"] if name not in named]
