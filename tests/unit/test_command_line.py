"""Hydra's habits on the command line: --help, --cfg job, --config-dir, --version."""

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


def test_ctrl_c_is_130_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.launch.launch", interrupted)
    assert main([]) == 130
    assert capfd.readouterr().err == ""
