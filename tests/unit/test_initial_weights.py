"""run.init_from: what fits is found and described, what does not is one line with the mend, and nothing is executed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pretrain import initial_weights
from pretrain.config.compose import compose
from pretrain.config.consistency import check_runnable
from pretrain.config.schema import Config
from pretrain.errors import UserError
from pretrain.export import main as export
from pretrain.model.build import vocabulary_in
from tests.made_runs import BERT, GPT2, TEXT, checkpoint_of, flip_a_bit, hash_of, make_run, make_tokenizer, plant_a_pickle

MLM = (*BERT, "objective=mlm")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "bert", *BERT)


@pytest.fixture(scope="module")
def exported(made: Path) -> Path:
    assert export([str(made), str(made.parent / "exported")]) == 0
    return made.parent / "exported"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """One to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "bert"))


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """One to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.fixture
def find(made: Path) -> Callable[..., initial_weights.InitialWeights]:
    """What a run with the tokenizer of `made` finds at a path, first without and then with its data."""

    def found(path: object, settings: tuple[str, ...] = BERT, tokenizer: Path = made / "tokenizer") -> initial_weights.InitialWeights:
        config = config_from(path, settings)
        initial_weights.check(config)
        weights = initial_weights.find(config, vocabulary_in(tokenizer), hash_of(tokenizer))
        assert weights is not None
        return weights

    return found


def config_from(path: object, settings: tuple[str, ...] = BERT) -> Config:
    return compose([*settings, f"run.init_from={path}"])


@pytest.fixture
def other_tokenizer(tmp_path: Path) -> Path:
    return make_tokenizer(compose([*BERT]), tmp_path / "other_tokenizer", [*TEXT, "owls hoot at night " * 9])


# What is found --------------------------------------------------------------------------------------------------------------------


def test_a_run_stands_for_its_newest_checkpoint(made: Path, find) -> None:
    for path in (made, checkpoint_of(made)):
        found = find(path)
        assert found.origin["path"] == str(path) and found.origin["step"] == 4 and len(found.origin["manifest_sha256"]) == 64
        assert found.told == [f"begins with the weights of step 4 in {checkpoint_of(made)}"]
    assert find(checkpoint_of(made, 2)).origin["step"] == 2
    assert initial_weights.find(compose([*BERT]), vocabulary_in(made / "tokenizer"), "") is None


def test_settings_that_no_weight_depends_on_may_differ(made: Path, exported: Path, find) -> None:
    longer = (*BERT, "data.max_seq_length=32", "model.dropout=0", "model.initializer_range=0.1", "train.precision=bf16", "optimizer=lamb")
    assert find(made, longer).origin["step"] == 4 and find(exported, longer).origin["path"] == str(exported)


def test_heads_that_are_not_there_are_named_and_so_are_those_that_are_not_needed(made: Path, exported: Path, tmp_path: Path, find) -> None:
    for path in (made, exported):
        (line,) = find(path, MLM).told
        assert "; in it, but not in this model: " in line and "bert.pooler.dense.bias" in line and "drawn anew" not in line
    without = make_run(tmp_path / "mlm", *MLM)
    assert export([str(without), str(tmp_path / "mlm_model")]) == 0
    for path in (without, tmp_path / "mlm_model"):
        (line,) = find(path).told
        assert line.endswith(
            "; not in it, so drawn anew: bert.pooler.dense.weight, bert.pooler.dense.bias, cls.seq_relationship.weight, "
            "cls.seq_relationship.bias"
        )


def test_a_bare_encoder_and_one_without_a_tokenizer_do(exported: Path, tmp_path: Path, find) -> None:
    from transformers import BertModel

    BertModel.from_pretrained(exported).save_pretrained(tmp_path / "encoder")
    warning, line = find(tmp_path / "encoder").told
    assert "holds no tokenizer; its vocabulary is taken to be that of the prepared data" in warning
    assert "drawn anew: cls.predictions.bias, cls.predictions.transform.dense.weight" in line and "encoder" not in line.partition("anew")[2]


def test_a_name_on_the_hub_is_found_in_its_cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find) -> None:
    """The cache as a download leaves it; the suite has no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="run.init_from=some/bert is no folder here and cannot be had from the hub .*; give a run's folder"):
        find("some/bert")
    repository = tmp_path / "hub" / "models--some--bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(exported, repository / "snapshots" / ("0" * 40))
    origin = find("some/bert").origin
    assert origin["path"] == "some/bert" and origin["revision"] == "0" * 40 and origin["sha256"].keys() == {"model.safetensors"}


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(run: Path, find) -> None:
    flip_a_bit(checkpoint_of(run) / "__0_0.distcp")
    found = find(run)
    assert found.origin["step"] == 2
    assert found.told[0].endswith("is damaged (__0_0.distcp does not match its checksum); step_00000002 is used instead")


# What does not fit ----------------------------------------------------------------------------------------------------------------


def refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_is_no_source_of_weights_is_refused(tmp_path: Path, find) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    refused(lambda: find(tmp_path / "nowhere"), "is not a folder; give a run's folder")
    refused(lambda: find(tmp_path / "file.txt"), "is not a folder; give a run's folder")
    refused(lambda: find(tmp_path / "empty"), "holds neither a run, nor a checkpoint, nor a model .*; give a run's folder")
    refused(lambda: find(tmp_path / "run"), "has no checkpoint yet; wait for its first one")


def test_damaged_checkpoints_are_refused_by_name(run: Path, find) -> None:
    flip_a_bit(checkpoint_of(run) / "__0_0.distcp")
    refused(lambda: find(checkpoint_of(run)), r"step_00000004 is not a whole checkpoint \(__0_0.distcp does not match .*; name another one")
    (checkpoint_of(run, 2) / "__0_0.distcp").unlink()
    refused(lambda: find(run), r"no checkpoint in .* is whole \(step_00000004: .*; step_00000002: __0_0.distcp is missing\); give another")


def test_nothing_in_a_checkpoint_is_executed(run: Path, tmp_path: Path, find) -> None:
    plant_a_pickle(checkpoint_of(run), tmp_path / "trace")
    refused(lambda: find(checkpoint_of(run)), "step_00000004 is not a whole checkpoint .*nothing of it was executed")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("setting", "there", "here"),
    [
        ("model.num_heads=4", "num_heads: 2 -> 4", "num_attention_heads: 2 there, 4 here"),
        ("model.num_layers=1", "num_layers: 2 -> 1", "num_hidden_layers: 2 there, 1 here"),
        ("model.max_positions=64", "max_positions: 32 -> 64", "max_position_embeddings: 32 there, 64 here"),
    ],
)
def test_another_model_is_refused_before_there_are_data(made: Path, exported: Path, setting: str, there: str, here: str) -> None:
    mend = "give the model=... and model settings that it has, or other weights"
    refused(lambda: initial_weights.check(config_from(made, (*BERT, setting))), f"holds another model .*{there}.*{mend}")
    refused(lambda: initial_weights.check(config_from(exported, (*BERT, setting))), f"holds another model .*{here}.*{mend}")


def test_another_architecture_of_the_same_shapes_is_refused(made: Path, model: Path, find) -> None:
    refused(lambda: find(made, GPT2), "family: bert -> gpt2")
    refused(lambda: find(model, GPT2), "model_type: bert there, gpt2 here")
    changed = json.loads((model / "config.json").read_text()) | {"hidden_act": "relu"}
    (model / "config.json").write_text(json.dumps(changed))
    refused(lambda: find(model), "hidden_act: relu there, gelu here")


def test_another_vocabulary_is_refused(made: Path, exported: Path, other_tokenizer: Path, find) -> None:
    for path in (made, checkpoint_of(made), exported):
        refused(lambda path=path: find(path, tokenizer=other_tokenizer), "trained with another vocabulary .*; give the tokenizer.path")


def test_models_that_are_not_whole_are_refused(model: Path, find) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    save_file({key: value for key, value in weights.items() if key != name}, model / "model.safetensors", {"format": "pt"})
    refused(lambda: find(model), f"lacks the weights of {name}; give a whole model")
    save_file(weights | {name: weights[name][:-1].contiguous()}, model / "model.safetensors", {"format": "pt"})
    refused(lambda: find(model), rf"holds no whole model .*\({name} is \(31, 128\), by its config.json \(32, 128\)\)")
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-100])
    refused(lambda: find(model), "holds no whole model .*; give one as save_pretrained writes it")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    refused(lambda: find(model), "with its weights in safetensors")
    (model / "config.json").write_text("{")
    refused(lambda: find(model), "holds no whole model in Hugging Face format")


def test_padded_rows_may_be_fewer_and_real_ones_not(model: Path, made: Path, find) -> None:
    """The published BERT has 30,522 rows; ours are padded to 30,528."""
    from transformers import BertForPreTraining

    size = vocabulary_in(made / "tokenizer").size
    whole = BertForPreTraining.from_pretrained(model)
    for rows in (size, size - 1):
        whole.resize_token_embeddings(rows)
        whole.save_pretrained(model)
        if rows == size:
            assert find(model).origin["path"] == str(model)
        else:
            refused(lambda: find(model), rf"is \({size - 1}, 32\) in .* whose vocabulary has {size} entries; give the tokenizer.path")


# The experiment -------------------------------------------------------------------------------------------------------------------


def test_phase_2_is_a_plan_without_weights_and_a_run_only_with_them() -> None:
    config = compose(["+experiment=bert_32k_phase2", "data.paths=[wiki]"])
    assert (config.data.max_seq_length, config.objective.max_predictions, config.train.num_steps) == (512, 80, 1563)
    refused(lambda: check_runnable(config, on_gpu=True), "run.init_from is empty.*add run.init_from=runs/NAME.*or run.init_from=null")
    for given in ("runs/bert_32k", "null"):
        check_runnable(compose(["+experiment=bert_32k_phase2", "data.paths=[wiki]", f"run.init_from={given}"]), on_gpu=True)


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ("run.init_form=x", "there is no setting 'run.init_form'; did you mean run.init_from?"),
        ("run.init_from=[a,b]", "run.init_from=[a,b] has the wrong type; give text or null"),
        ("checkpoint.keep_last=-1", "checkpoint.keep_last=-1"),
        ("checkpoint.keep_every=often", "checkpoint.keep_every=often has the wrong type; give a whole number"),
        ("checkpoint.keep_lats=3", "did you mean checkpoint.keep_last?"),
    ],
)
def test_a_mistake_in_the_new_settings_is_one_line(setting: str, mend: str) -> None:
    refused(lambda: compose([setting]), re.escape(mend))
