"""From configuration to optimizer: every setting arrives, in the groups that it belongs to."""

import dataclasses

import pytest
from torch import nn

from came.kernels import IMPLEMENTATIONS
from came.momentum import DTYPES
from pretrain.config.compose import compose
from pretrain.config.registry import SCHEMAS
from pretrain.errors import UserError
from pretrain.model.build import Vocabulary
from pretrain.optim import build_optimizer
from pretrain.plan.of_run import make_plan

MODEL = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
OTHERS = {
    "came": dict(beta1=0.8, beta2=0.7, beta3=0.6, eps1=1e-20, eps2=1e-10, clip_threshold=2.0, bias_correction=True, cautious=True, trust_ratio=True,
                 momentum_dtype="int8", implementation="eager", legacy_1d=True),
    "adamw": dict(beta1=0.8, beta2=0.7, eps=1e-3),
    "lamb": dict(beta1=0.8, beta2=0.7, eps=1e-3),
    "adafactor": dict(beta1=0.8, beta2_decay=-0.5, eps1=1e-20, eps2=1e-2, clip_threshold=2.0, scale_parameter=False),
    "sm3": dict(momentum=0.5),
}  # fmt: skip
"""For each optimizer a value that is not the default for every knob of its own."""
TOGETHER = {"betas": ("beta1", "beta2", "beta3"), "eps": ("eps1", "eps2")}


@pytest.mark.parametrize("name", SCHEMAS["optimizer"])
def test_every_knob_reaches_the_optimizer(name: str) -> None:
    knobs = {field.name for field in dataclasses.fields(SCHEMAS["optimizer"][name])} - {"name", "lr", "weight_decay"}
    assert knobs == OTHERS[name].keys(), "the test has to know every knob"
    config = compose([f"optimizer={name}", *(f"optimizer.{key}={value}" for key, value in OTHERS[name].items())])
    optimizer = build_optimizer(config.optimizer, MODEL)
    group = optimizer.param_groups[0]
    given = {key: value for key, value in group.items() if key not in ("betas", "eps")} | {"momentum_dtype": optimizer.rule.momentum_dtype}
    given |= {"implementation": getattr(optimizer, "implementation", None)}
    for joint, parts in TOGETHER.items():
        found = group.get(joint)
        given |= dict(zip(parts, found)) if isinstance(found, tuple) else {joint: found}
    assert {key: given[key] for key in knobs} == OTHERS[name]
    assert group["lr"] == config.optimizer.lr


@pytest.mark.parametrize("name", SCHEMAS["optimizer"])
def test_biases_and_normalisation_are_spared_decay_and_adaptation(name: str) -> None:
    config = compose([f"optimizer={name}", "optimizer.weight_decay=0.1"])
    matrices, vectors = build_optimizer(config.optimizer, MODEL).param_groups
    assert [len(group["params"]) for group in (matrices, vectors)] == [1, 3]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert (matrices.get("adapt"), vectors.get("adapt")) == ((True, False) if name == "lamb" else (None, None))


def test_the_run_s_seed_is_the_rounding_s() -> None:
    config = compose(["optimizer=came", "optimizer.momentum_dtype=bfloat16"])
    assert {group["seed"] for group in build_optimizer(config.optimizer, MODEL, 7).param_groups} == {7}


@pytest.mark.parametrize("option", ["cautious", "trust_ratio", "legacy_1d"])
def test_an_option_without_kernel_is_refused_with_kernels(option: str) -> None:
    with pytest.raises(UserError, match=f"optimizer.{option}=true is not valid; give optimizer.implementation=auto with it: it has no kernel"):
        compose(["optimizer.implementation=triton", f"optimizer.{option}=true"])


def test_the_implementations_are_came_s() -> None:
    for implementation in IMPLEMENTATIONS:
        compose([f"optimizer.implementation={implementation}"])


def test_the_momentum_s_dtypes_are_came_s() -> None:
    for dtype in DTYPES:
        compose([f"optimizer.momentum_dtype={dtype}"])
    with pytest.raises(UserError, match=f"optimizer.momentum_dtype=int4 is not valid; give one of {', '.join(DTYPES)}"):
        compose(["optimizer.momentum_dtype=int4"])


@pytest.mark.parametrize(("dtype", "low", "high"), [("float32", 0.50, 0.51), ("bfloat16", 0.25, 0.26), ("int8", 0.125, 0.132)])
def test_the_plan_knows_what_the_momentum_takes(dtype: str, low: float, high: float) -> None:
    plan = make_plan(compose(["+experiment=bert_32k", f"optimizer.momentum_dtype={dtype}"]), 1, Vocabulary(30_522))
    assert low <= plan.optimizer_state_bytes / plan.adamw_state_bytes <= high
    assert plan.optimizer_state_bytes / plan.parameters <= {"float32": 4.05, "bfloat16": 2.05, "int8": 1.05}[dtype]


@pytest.mark.parametrize(
    ("name", "low", "high"), [("came", 0.5, 0.51), ("adamw", 1, 1), ("lamb", 1, 1), ("sm3", 0.5, 0.51), ("adafactor", 0, 0.01)]
)
def test_the_plan_knows_the_state_of_each(name: str, low: float, high: float) -> None:
    plan = make_plan(compose(["+experiment=bert_32k", f"optimizer={name}"]), 1, Vocabulary(30_522))
    assert low <= plan.optimizer_state_bytes / plan.adamw_state_bytes <= high
