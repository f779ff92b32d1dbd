"""Every experiment and every choice of every group composes to the typed configuration."""

from pathlib import Path

import pytest

from pretrain.config import schema
from pretrain.config.compose import compose
from pretrain.config.consistency import check_consistency
from pretrain.config.location import configs_dir, group_choices
from pretrain.errors import UserError

CHOICES = [(group, name) for group, names in group_choices().items() for name in names if group != "experiment"]
NAMED_DATASETS = {"wikipedia": "wikimedia/wikipedia", "openwebtext": "Skylion007/openwebtext"}
NEEDS = {"clm": ["model=gpt2_tiny"], "gpt2": ["objective=clm"]}


@pytest.mark.parametrize("name", group_choices()["experiment"])
def test_every_experiment_composes_and_names_its_run_after_itself(name: str):
    config = compose([f"+experiment={name}"])
    assert config.run.name == name
    assert config.train.num_steps > 0


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=lambda value: value)
def test_every_choice_composes_to_the_dataclass_of_its_name(group: str, name: str):
    part = getattr(compose([f"{group}={name}", *NEEDS.get(name.partition("_")[0], [])]), group)
    assert NAMED_DATASETS.get(name, name) in (
        getattr(part, "name", None),
        getattr(part, "kind", None),
        f"stage{getattr(part, 'stage', None)}",
    )


@pytest.mark.parametrize(
    ("model", "layers", "width", "heads", "positions"),
    [
        ("bert_base", 12, 768, 12, 512),
        ("bert_large", 24, 1024, 16, 512),
        ("gpt2_small", 12, 768, 12, 1024),
        ("gpt2_medium", 24, 1024, 16, 1024),
        ("gpt2_large", 36, 1280, 20, 1024),
        ("gpt2_xl", 48, 1600, 25, 1024),
    ],
)
def test_published_sizes(model: str, layers: int, width: int, heads: int, positions: int):
    found = compose([f"model={model}", *NEEDS.get(model.partition("_")[0], [])]).model
    assert (found.num_layers, found.hidden_size, found.num_heads, found.max_positions) == (layers, width, heads, positions)


def test_without_an_experiment_the_demo_is_composed():
    assert compose([]) == compose(["+experiment=demo"])


def test_experiment_needs_no_plus():
    assert compose(["experiment=bert_8k"]) == compose(["+experiment=bert_8k"])


def test_bert_32k_is_the_recipe_of_the_paper():
    config = compose(["+experiment=bert_32k"])
    assert config.model == schema.BertConfig(name="bert_large", num_layers=24, hidden_size=1024, num_heads=16, dropout=0.1)
    assert (config.train.global_batch_size, config.train.micro_batch_size, config.train.num_steps) == (32768, 16, 20000)
    assert (config.data.max_seq_length, config.objective.kind, config.train.grad_clip) == (128, "mlm_nsp", 0)
    assert config.optimizer == schema.CameConfig(lr=2.4e-4, weight_decay=0.01, beta1=0.9, beta2=0.999, beta3=0.9999)
    assert config.schedule == schema.ScheduleConfig(kind="linear", warmup_ratio=0.2, min_lr_ratio=0)
    assert (config.train.precision, config.train.grad_accum_dtype, config.zero.stage) == ("bf16", "fp32", 1)


def test_an_override_beats_the_experiment_whether_value_or_choice():
    config = compose(["train.num_steps=7", "+experiment=gpt2_xl", "zero=stage1", "optimizer=adamw"])
    assert (config.train.num_steps, config.zero.stage, config.run.name) == (7, 1, "gpt2_xl")
    assert isinstance(config.optimizer, schema.AdamWConfig)


def test_an_experiment_can_be_shrunk_by_overrides_alone():
    config = compose(["+experiment=bert_32k", "model=bert_tiny", "data=stdlib", "data.max_seq_length=16", "tokenizer.vocab_size=512"])
    assert (config.train.global_batch_size, config.model.name, config.objective.max_predictions) == (32768, "bert_tiny", None)


def test_free_keys_for_deepspeed_need_no_plus():
    assert compose(["zero.extra.overlap_comm=true", "+zero.extra.reduce_bucket_size=1000"]).zero.extra == {
        "overlap_comm": True,
        "reduce_bucket_size": 1000,
    }


def test_composing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    compose([])
    assert not list(tmp_path.iterdir())


def test_yaml_states_no_default_again():
    """A default lives in its dataclass; a group's file that repeats it would hide a later change."""
    import yaml

    from pretrain.config.registry import SCHEMAS

    for file in configs_dir().glob("*/*.yaml"):
        if file.parent.name == "experiment":
            continue
        values = yaml.safe_load(file.read_text())
        (cls,) = [SCHEMAS[file.parent.name][entry.removesuffix("_schema")] for entry in values.pop("defaults") if entry != "_self_"]
        repeated = [key for key, value in values.items() if getattr(cls, key, None) == value]
        assert not repeated, f"{file}: {repeated}"


class TestUserFolder:
    """`--config-dir`: a folder of the user's own files, before ours."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("experiment", "model"):
            (tmp_path / name).mkdir()
        (tmp_path / "model" / "wide.yaml").write_text(
            "defaults:\n  - bert_schema\n  - _self_\nname: wide\nnum_layers: 1\nhidden_size: 512\nnum_heads: 8\n"
        )
        (tmp_path / "experiment" / "mine.yaml").write_text(
            "# @package _global_\ndefaults:\n  - demo\n  - override /model: wide\n  - _self_\nrun:\n  name: mine\n"
        )
        return tmp_path

    def write(self, folder: Path, name: str, text: str) -> None:
        (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")

    def test_its_experiments_build_on_ours(self, folder: Path):
        config = compose(["experiment=mine"], str(folder))
        assert (config.run.name, config.model.hidden_size, config.tokenizer.vocab_size) == ("mine", 512, 192)

    def test_it_is_forgotten_by_the_next_call(self, folder: Path):
        compose(["experiment=mine"], str(folder))
        with pytest.raises(UserError, match="experiment=mine is not known"):
            compose(["experiment=mine"])

    def test_a_file_of_the_same_name_wins(self, folder: Path):
        self.write(folder, "demo", "defaults:\n  - mine\n  - _self_\ntrain:\n  num_steps: 3\nrun:\n  name: demo\n")
        (folder / "experiment" / "mine.yaml").write_text("# @package _global_\ntrain: {global_batch_size: 2, micro_batch_size: 1}\n")
        assert compose([], str(folder)).train.num_steps == 3

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "defaults: [demo, _self_]\ntrain:\n  num_stepz: 3\n",
                "experiment/bad.yaml: there is no setting 'train.num_stepz'; did you mean train.num_steps?",
            ),
            ("foo:\n  name: x\n", "experiment/bad.yaml: there is no setting 'foo'"),
            (
                "defaults: [demo, _self_]\ntrain:\n  num_steps: soon\n",
                "experiment/bad.yaml: train.num_steps .* has the wrong type; give a whole number",
            ),
            ("defaults: [demo, {override /model: huge}]\n", "model=huge is not known; choose one of .*gpt2_xl, wide"),
            ("defaults: [nowhere]\n", "experiment=nowhere is not known; choose one of bad, bert_32k"),
            ("run:\n  name: x\n", "nothing sets train"),
            (
                "defaults: [_self_]\nrun: {name: x}\ntrain: {global_batch_size: 2, num_steps: 1}\n",
                "train.micro_batch_size is not given; add train.micro",
            ),
            ("run: [\n", r"experiment/bad.yaml, line \d+ is not valid YAML"),
            ("run: {name: x, name: y}\n", r"experiment/bad.yaml, line 2 is not valid YAML \(found duplicate key name\)"),
            ("3\n", "experiment/bad.yaml holds no settings; write them as key: value"),
            ("defaults: 3\n", "the defaults of experiment/bad.yaml are not a list of names"),
            ("defaults: [demo, [a]]\n", "the defaults of experiment/bad.yaml are not a list of names"),
            ("defaults: [bad]\n", "a defaults list leads back to its own file"),
            ("defaults: [demo, _self_]\ntrain: {null: 3}\n", "experiment/bad.yaml: under train stands the key None"),
            ("defaults: [demo, _self_]\ntrain: [1]\n", "experiment/bad.yaml: train .* replaces a whole part"),
        ],
    )
    def test_a_mistake_in_a_file_is_said_with_its_place(self, folder: Path, text: str, message: str):
        self.write(folder, "bad", text)
        with pytest.raises(UserError, match=message) as error:
            compose(["experiment=bad"], str(folder))
        assert "\n" not in str(error.value)

    def test_a_file_that_is_not_text_is_named(self, folder: Path):
        (folder / "experiment" / "bad.yaml").write_bytes(b"run: \xff")
        with pytest.raises(UserError, match=r"experiment/bad.yaml is not text in UTF-8 \(byte 5\)"):
            compose(["experiment=bad"], str(folder))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracker=1.5", "tracker=1.5 is not known; choose one of none, wandb"),
        ("@optimizer.lr=1", "'@optimizer.lr=1' is not a setting"),
        ("zeo.extra=x", r"there is no setting 'zeo.extra'; did you mean zero.extra\?"),
        ("dta=stdlib", r"there is no setting 'dta'; did you mean data\?"),
        ("data.mixture.a.paths=[x]", "'data.mixture.a.paths' is not a setting of the chosen data"),
        ("zero.extra.overlap_comm.a=1", "zero.extra.overlap_comm={'a': 1} is not a single value"),
        (f"train.num_steps={10**400}", "train.num_steps=10+ is not valid; give 2147483647 or less"),
    ],
)
def test_what_hydra_lets_pass_or_trips_over_is_refused(override: str, message: str):
    with pytest.raises(UserError, match=message):
        compose([override])


MIXED = ["data=mixture", "data.mixture.wiki.name=wikimedia/wikipedia", "data.mixture.wiki.weight=3", "data.mixture.books.paths=[books/]"]


def test_a_mixture_is_named_source_by_source():
    mixture = compose(MIXED).data.mixture
    assert {name: (source.weight, source.paths, source.name) for name, source in mixture.items()} == {
        "wiki": (3.0, [], "wikimedia/wikipedia"),
        "books": (1.0, ["books/"], ""),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.mixture.wiki.wheight=2",
            r"data.mixture.wiki: Key 'wheight' not in 'SourceConfig'; its settings are paths, valid_paths, text_field, documents, name, subset, split, valid_split, revision, streaming, weight",
        ),
        ("data.mixture.wiki.weight=0", r"data.mixture.wiki.weight=0.0 is not valid; give a number above 0"),
        ("data.mixture.wiki.weight=much", r"data.mixture.wiki: Value 'much' of type 'str' could not be converted to Float"),
        ("data.mixture.wiki.paths=[a]", r"data.mixture.wiki must have either paths \(files\) or name \(a data set of the hub\)"),
        ("data.mixture.web.weight=1", r"data.mixture.web must have either paths"),
        ("data.mixture.tokenizer.paths=[a]", r"data.mixture='tokenizer' is not valid; give names .* other than tokenizer"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_one_line(override: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        compose([*MIXED, override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.profile_steps.more=[1]"], "^there is no setting 'train.profile_steps.more'; did you mean train.profile_steps"),
        (["data=text", "data.paths=['']"], r"^data.paths=\[''\] is not valid; give names of files or folders"),
        (["data=text", "data.paths=[[a]]"], r"^data.paths=\[\['a'\]\] is not valid; give names of files or folders"),
        (["data=text", "data.paths=[null]"], r"^data.paths=\[null\] has the wrong type; give a list, each element text: \[first,second\]$"),
        (["train.profile_steps=[1,[2]]"], r"^train.profile_steps=\[1,\[2\]\] is not valid; give the first and the last step"),
        (["data=text", "data.paths=[a]", "data.valid_paths=[b,'']"], r"^data.valid_paths=\['b', ''\] is not valid"),
        (["data=mixture", "data.mixture.wiki.paths=[a,'']"], r"^data.mixture.wiki.paths=\['a', ''\] is not valid"),
        (["data=text", "data.paths=[a]", "data.max_seq_length=3"], "^data.max_seq_length=3 is not valid; give 8 or more"),
        (["train.micro_batch_size=many"], "^train.micro_batch_size=many is not valid; give a positive integer, or auto"),
        (["train.micro_batch_size=true"], "^train.micro_batch_size=True is not valid"),
        (["train.compile=true", "zero=stage3"], "^train.compile=true does not go with zero.stage=3"),
    ],
)
def test_a_setting_that_cannot_be_is_said_with_the_mend(settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_consistency(compose(settings))
