"""What the runs of a sweep are called: by what changes their mathematics, in characters that need no quoting."""

import re
import shlex
from pathlib import Path

import pytest

from pretrain.config.compose import compose
from pretrain.config.expand import expand
from pretrain.sweep.names import LONGEST, run_name

PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def name_of(*overrides: str, config_dir: str | None = None) -> str:
    (single,) = expand(list(overrides), config_dir)
    return run_name(single, compose(single, config_dir), config_dir)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("+experiment=bert_mini optimizer=adamw optimizer.lr=1e-4 run.seed=1", "bert_mini-adamw-lr_0.0001-seed_1"),
        ("experiment=bert_mini", "bert_mini"),
        ("run.seed=3", "demo-seed_3"),
        ("+experiment=bert_mini run.name=mine run.seed=3", "mine-bert_mini-seed_3"),
        ("model=bert_base train.spike_sigma=6 train.grad_clip=0.5", "demo-bert_base-grad_clip_0.5-spike_sigma_6"),
        ("run.init_from=null optimizer.bias_correction=true", "demo-bias_correction_true-init_from_null"),
        ("optimizer.lr=1e-5 optimizer.eps1=1e-30", "demo-eps1_1e-30-lr_1e-05"),
        # Which text counts, where it lies does not.
        ("+experiment=bert_mini data=stdlib data.max_seq_length=64", "bert_mini-stdlib-max_seq_length_64"),
        ("+experiment=bert_mini data.paths=[a.txt] tokenizer.vocab_size=4096", "bert_mini-vocab_size_4096"),
        ("+experiment=bert_mini data.paths=[a.txt] data.documents=file", "bert_mini-documents_file"),
        ("data=hub data.name=a/b data.subset=en data.streaming=false", "demo-hub-data.name_a_b_c14cddc033-subset_en"),
        (
            "data=mixture data.mixture.wiki.paths=[a] data.mixture.wiki.weight=3.0 data.mixture.wiki.text_field=t",
            "demo-mixture-data.mixture.wiki.weight_3",
        ),
    ],
)
def test_the_name_follows_from_the_overrides(overrides: str, name: str):
    assert name_of(*overrides.split()) == name


@pytest.mark.parametrize(
    "override",
    "zero=stage1 zero.offload=cpu tracker=none launch.num_processes=2 checkpoint.keep_last=1 train.micro_batch_size=8 run.dir=there "
    "train.log_every_steps=1 data.cache_dir=c data.paths=[x] tokenizer.path=t".split(),
)
def test_what_changes_no_number_is_not_in_the_name(override: str):
    assert name_of("+experiment=bert_mini", "run.seed=1", override) == "bert_mini-seed_1"


@pytest.mark.parametrize("same", [("1e-4", "0.0001", "1.0e-04"), ("1", "1.0", "1e0"), ("'0.5'", "0.5", ".5")])
def test_a_number_has_one_name(same: tuple[str, ...]):
    assert len({name_of(f"optimizer.lr={value}") for value in same}) == 1


def test_the_order_of_the_overrides_does_not_matter():
    overrides = ["run.seed=1", "optimizer=adamw", "+experiment=bert_mini", "optimizer.lr=1e-4"]
    assert name_of(*overrides) == name_of(*reversed(overrides)) == "bert_mini-adamw-lr_0.0001-seed_1"


@pytest.mark.parametrize("base", ["my run", "a'b", "ä", "x;y", "$HOME", "a,b", "-"])
def test_names_need_no_quoting_in_a_shell_or_an_override(base: str):
    name = name_of(f'run.name="{base}"', "run.seed=1")
    assert PLAIN.fullmatch(name) and shlex.quote(name) == name
    assert compose([f"run.name={name}"]).run.name == name


def test_other_texts_have_other_names():
    """Where characters have to be replaced, and where a value could be read as the next part."""
    names = {name_of(f"run.init_from={value}") for value in ("runs/a", "runs_a", "'runs a'", "a-seed_1", "a")}
    assert len(names | {name_of("run.init_from=a", "run.seed=1")}) == 6


def test_a_choice_that_two_groups_have_is_named_with_its_group(tmp_path: Path):
    for group, inherits in (("model", "bert_tiny"), ("objective", "mlm")):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(f"defaults: [{inherits}]\n")
    assert name_of("model=mine", config_dir=str(tmp_path)) == "demo-model_mine"
    assert name_of("objective=mine", config_dir=str(tmp_path)) == "demo-objective_mine"


def test_what_is_too_long_ends_in_a_hash():
    long = "+experiment=bert_mini run.name=" + "x" * 230
    first, second = (name_of(*long.split(), f"run.seed={seed}") for seed in (1, 2))
    assert len(first) == len(second) == LONGEST and first != second
    assert first[:-10] == second[:-10] and PLAIN.fullmatch(first)
