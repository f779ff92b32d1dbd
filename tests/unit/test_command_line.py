"""Hydra's habits on the command line: --help, --cfg job, --config-dir, --version."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain import __version__
from pretrain.__main__ import main
from pretrain.config.compose import compose
from pretrain.config.location import group_choices
from pretrain.config.registry import known_keys
from pretrain.config.serialise import from_yaml


def test_help_lists_every_group_with_its_choices_and_the_default(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for group, names in group_choices().items():
        assert group in text and ", ".join(names) in text
    assert "without one: demo" in text


def test_help_names_only_settings_that_exist(capsys: pytest.CaptureFixture[str]):
    main(["--help"])
    section = capsys.readouterr().out.partition("main settings")[2].partition("examples:")[0]
    named = {
        word.strip(",")
        for word in section.split()
        if word.strip(",").count(".") == 1 and word.strip(",")[-1].isalpha() and word[0].isalpha()
    }
    assert len(named) > 10 and named <= set(known_keys())


def test_cfg_job_prints_the_whole_composed_configuration(capsys: pytest.CaptureFixture[str]):
    overrides = ["+experiment=gpt2_xl", "train.num_steps=3"]
    assert main(["--cfg", "job", *overrides]) == 0
    assert from_yaml(capsys.readouterr().out) == compose(overrides)


def test_cfg_job_prints_one_setting_as_it_is(capsys: pytest.CaptureFixture[str]):
    assert main(["--cfg", "job", "--package", "run.name", "run.name='2024'"]) == 0
    assert capsys.readouterr().out == "2024\n"
    assert main(["--package", "run.name"]) == main(["-m", "--cfg", "job", "-p", "run.name", "run.seed=1,2"]) == 2
    assert capsys.readouterr().err == 2 * "error: --package goes with --cfg job, of one run; add --cfg job, or leave -m out\n"
    assert main(["--cfg", "job", "-p", "run.nothing"]) == main(["--cfg", "job", "-p", "run.name.more"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "error: --package run.nothing is not a setting; --cfg job prints those that are"


def test_config_takes_what_cfg_job_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    overrides = ["+experiment=gpt2_xl", "train.num_steps=3", "zero.extra.overlap_comm=true"]
    main(["--cfg", "job", *overrides])
    printed = capsys.readouterr().out
    (tmp_path / "whole.yaml").write_text(printed)
    assert main(["--config", str(tmp_path / "whole.yaml"), "--cfg", "job"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", [], "--config FILE is not a whole configuration (.*); give a file that --cfg job printed"),
        ("train: {num_steps: 3}", [], "--config FILE is not a whole configuration (.*); give a file that --cfg job printed"),
        ("WHOLE", ["train.num_steps=3"], "--config FILE is a whole configuration; leave train.num_steps=3 out, or change the file"),
        ("WHOLE", ["-cd", "."], "--config FILE is a whole configuration; leave --config-dir out, or change the file"),
        ("LONG", [], "data.max_seq_length=600 is more than model.max_positions=512; give 512 or less"),
        (None, [], "--config FILE cannot be read (No such file or directory); give a file that --cfg job printed"),
    ],
)
def test_config_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, more: list[str], message: str):
    main(["--cfg", "job"])
    whole = capsys.readouterr().out
    file = tmp_path / "whole.yaml"
    if text is not None:
        file.write_text({"WHOLE": whole, "LONG": whole.replace("max_seq_length: 32", "max_seq_length: 600")}.get(text, text))
    assert main(["--config", str(file), *more]) == 2
    error = re.escape(f"error: {message}\n").replace(re.escape("(.*)"), "(.*)").replace("FILE", re.escape(str(file)))
    assert re.fullmatch(error, capsys.readouterr().err)


def test_options_may_stand_between_the_settings(capsys: pytest.CaptureFixture[str]):
    assert main(["train.num_steps=3", "--cfg", "job", "run.seed=5"]) == 0
    config = from_yaml(capsys.readouterr().out)
    assert (config.train.num_steps, config.run.seed) == (3, 5)


def test_config_dir_brings_the_user_s_experiments_into_help_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [demo, _self_]\nrun: {name: mine}\n")
    assert main(["-cd", str(tmp_path), "--help"]) == 0
    assert "gpt2_xl, mine" in capsys.readouterr().out
    assert main(["-cd", str(tmp_path), "experiment=mine", "--cfg", "job"]) == 0
    assert from_yaml(capsys.readouterr().out).run.name == "mine"


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code in (0, None)
    assert capsys.readouterr().out.strip() == __version__


def test_a_reader_that_has_read_enough_ends_the_command_quietly():
    command = [sys.executable, "-m", "pretrain", "-m", "run.seed=range(40)", "--cfg", "job"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_ctrl_c_is_130_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.launch.launch", interrupted)
    assert main([]) == 130
    assert capfd.readouterr().err == ""
