"""Handed to other people's training loops: the Hugging Face Trainer, and Accelerate with DeepSpeed."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from came import CAME
from came.reference import Reference, came_step
from came.verify.engines import deepspeed_config, import_deepspeed
from came.verify.probe import UPDATE_BOUND, WEIGHT_BOUND, Cell, Piece, Probe, assemble, draw_gradients, errors, pieces, whole_answer
from came.verify.ranks import run_on_ranks

HYPER = {"lr": 2e-4, "weight_decay": 0.01}


class Keys(torch.utils.data.Dataset):
    """Sample `index` is the key of the gradients that it gives."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"key": torch.tensor(index)}


class TrainerProbe(nn.Module):
    """Returns a loss as the Trainer expects it, and remembers which samples it saw, because the Trainer shuffles them."""

    def __init__(self) -> None:
        super().__init__()
        self.probe, self.seen = Probe(), []

    def forward(self, key: Tensor) -> dict[str, Tensor]:
        (index,) = key.tolist()
        self.seen.append(index)
        return {"loss": self.probe(draw_gradients(index, 0, 0))}


def test_hugging_face_trainer(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = TrainerProbe()
    initial = [param.detach().clone() for param in model.parameters()]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=20,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_grad_norm=2.0,
        learning_rate=HYPER["lr"],
        lr_scheduler_type="linear",
        warmup_steps=5,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    optimizer = CAME(model.parameters(), **HYPER)
    Trainer(model=model, args=arguments, train_dataset=Keys(60), optimizers=(optimizer, None)).train()

    assert len(model.seen) == 40 and model.seen != sorted(model.seen)
    wanted = [weights.clone() for weights in initial]
    for step, pair in enumerate(zip(model.seen[::2], model.seen[1::2], strict=True)):
        gradients = [(left + right) / 2 for left, right in zip(*(draw_gradients(index, 0, 0) for index in pair), strict=True)]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        if step == 0:
            reference = Reference(wanted, came_step, **HYPER)
        reference.hyper["lr"] = HYPER["lr"] * min(step / 5, (20 - step) / 15)  # the Trainer's warm-up and linear decay
        reference.step([gradient * min(1.0, 2.0 / (float(norm) + 1e-6)) for gradient in gradients])
    weight, update = errors([param.detach() for param in model.parameters()], wanted, initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


def train_with_accelerate(stages: tuple[int, ...]) -> dict[int, list[Piece]]:
    return {stage: _train_with_accelerate(stage) for stage in stages}


def _train_with_accelerate(stage: int) -> list[Piece]:
    from accelerate import Accelerator, DeepSpeedPlugin
    from accelerate.state import AcceleratorState

    import_deepspeed()
    AcceleratorState._reset_state(reset_partial_state=True)
    cell = Cell("came", stage, "fp32", 2)
    config = deepspeed_config(stage, "fp32", cell.accumulation, cell.grad_clip)
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    model = Probe()
    optimizer = CAME(model.parameters(), **HYPER)
    names = {param: name for name, param in model.named_parameters()}
    engine, prepared = accelerator.prepare(model, optimizer)
    for step in range(cell.steps):
        for micro_step in range(cell.accumulation):
            with accelerator.accumulate(engine):
                accelerator.backward(engine(draw_gradients(step, micro_step, dist.get_rank())))
                prepared.step()
                prepared.zero_grad()
    found = pieces(optimizer, names)
    engine.destroy()
    return found


@pytest.fixture(scope="module")
def accelerated() -> list[dict[int, list[Piece]]]:
    return run_on_ranks(2, train_with_accelerate, (2, 3))


@pytest.mark.parametrize("stage", [2, 3])
def test_accelerate_with_deepspeed(accelerated: list[dict[int, list[Piece]]], stage: int) -> None:
    answer = whole_answer(Cell("came", stage, "fp32", 2), 2)
    found = assemble([found[stage] for found in accelerated], [name for name, _ in Probe().named_parameters()])
    weight, update = errors(found, answer.final, answer.initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND
