"""The accumulated gradients of real models are those of plain autograd on the global batch, at every stage."""

from itertools import product

import pytest
import torch
from deepspeed.utils import safe_get_full_grad

from came.verify.ranks import run_on_ranks
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import BertConfig, CameConfig, ClmConfig, Config, Gpt2Config, MlmNspConfig, RunConfig, TrainConfig, ZeroConfig
from pretrain.data.micro_batches import micro_batches
from pretrain.engine import Engine
from pretrain.model.acceleration import accelerate
from pretrain.model.build import Vocabulary, build_model
from pretrain.model.objective import IGNORED, combine
from pretrain.optim import build_optimizer

SIZES = dict(num_layers=2, hidden_size=24, num_heads=2, dropout=0.0)
MODELS = {
    "bert": (BertConfig(name="bert", max_positions=16, **SIZES), MlmNspConfig()),
    "gpt2": (Gpt2Config(name="gpt2", max_positions=16, **SIZES), ClmConfig()),
}
VOCABULARY = Vocabulary(size=60, pad_id=0, end_of_text_id=1)
RANKS, MICRO_STEPS, MICRO_BATCH, LENGTH, PREDICTIONS = 2, 3, 2, 12, 4


def make_config(family: str, stage: int, recompute: bool = False) -> Config:
    model, objective = MODELS[family]
    train = TrainConfig(
        global_batch_size=RANKS * MICRO_STEPS * MICRO_BATCH, micro_batch_size=MICRO_BATCH, num_steps=1, activation_checkpointing=recompute
    )
    return Config(
        run=RunConfig(name="gradients"), train=train, model=model, objective=objective, optimizer=CameConfig(), zero=ZeroConfig(stage=stage)
    )


def draw_batch(family: str, index: int) -> dict[str, torch.Tensor]:
    """A micro-batch with a number of targets that differs from one to the next."""
    generator = torch.Generator().manual_seed(index)
    ids = torch.randint(5, VOCABULARY.size, (MICRO_BATCH, LENGTH), generator=generator)
    if family == "gpt2":
        labels = ids.roll(-1, dims=1)
        labels[:, LENGTH - index :] = IGNORED
        return {"input_ids": ids, "labels": labels}
    labels = torch.randint(5, VOCABULARY.size, (MICRO_BATCH, PREDICTIONS), generator=generator)
    labels[:, 1 + index % PREDICTIONS :] = IGNORED
    fields = {
        "input_ids": ids,
        "token_type_ids": (torch.arange(LENGTH) > 6).long().expand_as(ids).clone(),
        "attention_mask": (torch.arange(LENGTH) < LENGTH - index).long().expand_as(ids).clone(),
        "masked_positions": torch.randint(0, 6, (MICRO_BATCH, PREDICTIONS), generator=generator),
        "masked_labels": labels,
        "replaced_by_mask": labels != IGNORED,
        "next_sentence_label": torch.randint(0, 2, (MICRO_BATCH,), generator=generator),
    }
    (batch,) = micro_batches({name: values.numpy() for name, values in fields.items()}, MICRO_BATCH)
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def engine_gradients(family: str, stage: int, recompute: bool) -> tuple[float, dict[str, torch.Tensor]]:
    config = make_config(family, stage, recompute)
    torch.manual_seed(0)
    model = build_model(config, VOCABULARY)
    accelerate(model, config, on_gpu=False)
    engine = Engine(model, build_optimizer(config.optimizer, model), config, BatchPlan(config.train.global_batch_size, MICRO_BATCH, RANKS))
    loss = engine.accumulate([draw_batch(family, RANKS * micro_step + distributed.rank()) for micro_step in range(MICRO_STEPS)])
    gradients = {name: safe_get_full_grad(param).clone() for param, name in engine.names.items()}
    mean = engine.mean_loss(loss)
    engine.step(lr=0.0)
    engine.destroy()
    return mean, gradients


def all_engine_gradients() -> dict:
    return {cell: engine_gradients(*cell) for cell in product(MODELS, (0, 1, 2, 3), (False, True))}


@pytest.fixture(scope="module")
def found() -> dict:
    return run_on_ranks(RANKS, all_engine_gradients)[0]


@pytest.mark.parametrize("recompute", [False, True], ids=["", "activation checkpointing"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("family", MODELS)
def test_accumulated_gradients_equal_plain_autograd(found: dict, family: str, stage: int, recompute: bool) -> None:
    torch.manual_seed(0)
    model = build_model(make_config(family, stage), VOCABULARY).double().train()
    batches = [draw_batch(family, index) for index in range(RANKS * MICRO_STEPS)]
    counts = {name: sum(model.valid_counts(batch)[name] for batch in batches) for name in model.loss_names}
    assert len({tuple(model.valid_counts(batch).values()) for batch in batches}) > 1
    loss = sum(combine(model(batch), counts, model.loss_names) for batch in batches)
    loss.backward()

    mean, gradients = found[family, stage, recompute]
    assert mean == pytest.approx(float(loss.detach()), rel=1e-6)
    whole_norm = torch.stack([param.grad.norm() for param in model.parameters()]).norm()
    for name, param in model.named_parameters():
        difference = (gradients[name].double().view(param.shape) - param.grad).norm()
        assert difference <= 1e-5 * param.grad.norm() + 1e-7 * whole_norm, name
