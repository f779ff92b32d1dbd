"""Settings that do not go together are refused with the mend; what changes the mathematics of a run is known."""

import pytest

from pretrain.config.compose import compose
from pretrain.config.consistency import check_runnable, differences, mathematical_settings
from pretrain.config.schema import Config
from pretrain.config.zero_keys import FREE, OWNED, check_extra
from pretrain.errors import UserError

CONFLICTS = {
    "objective=clm": "objective=clm does not train model=bert_tiny; give objective=mlm or objective=mlm_nsp",
    "model=gpt2_tiny objective=mlm_nsp": "objective=mlm_nsp does not train model=gpt2_tiny; give objective=clm",
    "tokenizer.kind=bpe": "give tokenizer.kind=wordpiece",
    "model=gpt2_tiny objective=clm tokenizer.kind=wordpiece": "give tokenizer.kind=bpe",
    "data.max_seq_length=513": "data.max_seq_length=513 is more than model.max_positions=512; give 512 or less",
    "objective=mlm_nsp data.max_seq_length=64 objective.max_predictions=62": "more than the 61 tokens that data.max_seq_length=64 leaves",
    "objective=mlm data.max_seq_length=64 objective.max_predictions=63": "more than the 62 tokens",
    "zero=stage0 train.precision=bf16": "give zero.stage=1, which also works on one rank",
    "zero.stage=0 train.precision=fp16 train.grad_accum_dtype=model": "has no working loss scale; give zero.stage=1",
    "zero.extra.stage=3": "zero.extra.stage is set by the harness.*use zero.stage",
    "zero.extra.overlap_com=true": "did you mean overlap_comm?",
    "zero.extra.colour=1": "there are allgather_bucket_size, ",
    "optimizer.name=adamw": "choose by the group instead: optimizer=",
    "model.family=gpt2": "choose by the group instead: model=",
}


@pytest.mark.parametrize("overrides", CONFLICTS)
def test_a_conflict_is_refused_with_the_mend(overrides: str):
    with pytest.raises(UserError, match=CONFLICTS[overrides]):
        compose(overrides.split())


@pytest.mark.parametrize(
    "overrides",
    [
        "data.max_seq_length=512",
        "objective=mlm_nsp data.max_seq_length=64 objective.max_predictions=61",
        "objective=mlm data.max_seq_length=64 objective.max_predictions=62",
        "model=gpt2_tiny objective=clm tokenizer.kind=bpe data.max_seq_length=1024",
        "zero=stage0 train.precision=bf16 train.grad_accum_dtype=model",
        "zero=stage1 train.precision=bf16",
    ],
)
def test_the_mend_is_accepted(overrides: str):
    compose(overrides.split())


@pytest.mark.parametrize("key", sorted(OWNED))
def test_what_exactness_rests_on_cannot_be_overridden(key: str):
    with pytest.raises(UserError, match=f"zero.extra.{key} is set by the harness"):
        check_extra({key: 1})


def test_every_key_of_deepspeed_is_either_owned_or_free():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    assert OWNED | FREE == {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    assert not OWNED & FREE


def test_text_without_paths_is_refused_for_a_run_but_composes_for_a_plan():
    config = compose(["data=text"])
    with pytest.raises(UserError, match=r"add data.paths=\[FILE"):
        check_runnable(config, on_gpu=True)
    check_runnable(compose(["data=text", "data.paths=[a.txt]"]), on_gpu=False)


def test_fp16_needs_a_gpu():
    config = compose(["train.precision=fp16"])
    check_runnable(config, on_gpu=True)
    with pytest.raises(UserError, match="give train.precision=bf16 or fp32"):
        check_runnable(config, on_gpu=False)


@pytest.mark.parametrize(("on_gpu", "override"), [(False, "zero=stage2"), (True, "zero.offload=cpu")])
def test_kernels_need_the_state_on_a_gpu(on_gpu: bool, override: str):
    config = compose(["optimizer.implementation=triton", "zero.stage=1"])
    check_runnable(config, on_gpu=True)
    with pytest.raises(UserError, match="leave it at auto"):
        check_runnable(compose(["optimizer.implementation=triton", "zero.stage=1", override]), on_gpu=on_gpu)


def changes(old: Config, new: Config) -> list[str]:
    return differences(mathematical_settings(old), mathematical_settings(new))


def test_differences_read_as_old_and_new():
    old, new = (compose([f"train.num_steps={steps}", f"data.max_seq_length={length}"]) for steps, length in [(400, 64), (50, 32)])
    assert changes(old, new) == ["train.num_steps: 400 -> 50", "data.max_seq_length: 64 -> 32"]


def test_another_optimizer_differs_in_the_settings_of_both():
    found = changes(compose([]), compose(["optimizer=adamw", "optimizer.lr=1e-3"]))
    assert "optimizer.name: came -> adamw" in found
    assert "optimizer.beta3: 0.9999 -> none" in found and "optimizer.eps: none -> 1e-08" in found


LAYOUT_AND_RHYTHM = (
    "run.name=x run.dir=y run.resume=never run.dry_run=true run.export=false train.micro_batch_size=8 train.log_every_steps=3 "
    "train.eval_every_steps=3 train.eval_samples=3 train.checkpoint_every_steps=3 train.max_skipped_steps=3 data.cache_dir=z zero=stage3 "
    "zero.extra.overlap_comm=true tracker=none optimizer.implementation=eager launch.num_processes=4 launch.timeout_seconds=3"
)


def test_layout_and_rhythm_leave_the_mathematics_alone():
    assert changes(compose([]), compose(LAYOUT_AND_RHYTHM.split())) == []


@pytest.mark.parametrize(
    "override",
    ["run.seed=1", "train.precision=bf16", "train.grad_accum_dtype=model", "model.dropout=0.3", "optimizer.eps1=1e-29", "optimizer.momentum_dtype=int8",
     "schedule.warmup_ratio=0.2", "objective.mask_probability=0.2", "tokenizer.lowercase=false", "data.validation_fraction=0.3", "train.grad_clip=1", "train.spike_sigma=6"],
)  # fmt: skip
def test_everything_else_counts(override: str):
    (line,) = changes(compose([]), compose([override]))
    assert line.startswith(override.partition("=")[0])


def test_the_settings_are_flat_and_plain():
    settings = mathematical_settings(compose([]))
    assert settings["optimizer.beta3"] == 0.9999
    assert not any(isinstance(value, dict) for value in settings.values())
