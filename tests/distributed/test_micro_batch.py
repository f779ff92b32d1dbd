"""train.micro_batch_size=auto on two ranks: found on the real engine, agreed upon, remembered, kept by a run that goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from came.verify.ranks import run_on_ranks
from pretrain import device_memory, distributed
from pretrain.config.schema import AUTO, CameConfig, Config, RunConfig, TextDataConfig, TrainConfig, ZeroConfig
from pretrain.errors import UserError
from pretrain.micro_batch import settle
from tests.distributed.test_gradients import MODELS, VOCABULARY

RANKS, GLOBAL_BATCH = 2, 24


def make_config(family: str, cache: Path, stage: int = 1) -> Config:
    model, objective = MODELS[family]
    return Config(
        run=RunConfig(name="auto"),
        train=TrainConfig(global_batch_size=GLOBAL_BATCH, micro_batch_size=AUTO, num_steps=1),
        model=model,
        data=TextDataConfig(max_seq_length=16, cache_dir=str(cache)),
        objective=objective,
        optimizer=CameConfig(),
        zero=ZeroConfig(stage=stage),
    )


class Scarce(device_memory.DeviceMemory):
    """A device with room for `room` bytes, of which a sample takes one more on rank 1 than on rank 0; counts its trials."""

    description = "made up"
    trials = 0

    def __init__(self, room: int) -> None:
        self.device, self.room, self.samples = distributed.device(), room, 0

    def budget_bytes(self, margin: float, ranks: int) -> float:
        assert (margin, ranks) == (0.25, RANKS)
        return self.room

    def begin(self) -> None:
        Scarce.trials += 1

    def peak_bytes(self) -> int:
        sizes = [1, 2, 3, 4, 6, 12]
        return (2 + distributed.rank()) * sizes[Scarce.trials - 1]


def found(config: Config, metrics: Path) -> int:
    return settle(config, VOCABULARY, metrics).train.micro_batch_size


def on_ranks(folder: Path) -> dict[str, object]:
    nothing = folder / "no metrics.jsonl"
    results: dict[str, object] = {}
    for family, stage in (("bert", 1), ("gpt2", 3)):
        results[f"plenty of memory, {family}"] = found(make_config(family, folder / "cache", stage), nothing)
    results["remembered"] = json.loads((folder / "cache" / "micro_batch_sizes.json").read_text())

    config = make_config("bert", folder / "scarce")
    really = device_memory.of
    device_memory.of = lambda device: Scarce(room=10)  # 3 x 3 on rank 1; rank 0 alone could take 4
    results["scarce"] = found(config, nothing)
    trials, Scarce.trials = Scarce.trials, 0
    results["scarce, again"], results["trials"] = found(config, nothing), (trials, Scarce.trials)
    results["scarce, another lr"] = found(replace(config, optimizer=CameConfig(lr=1.0)), nothing)
    device_memory.of = lambda device: Scarce(room=1)
    try:
        found(replace(config, zero=ZeroConfig(stage=2)), nothing)
    except UserError as error:
        results["nothing fits"] = str(error)
    device_memory.of = really

    metrics = folder / "metrics.jsonl"
    if distributed.is_main():
        metrics.write_text(json.dumps({"kind": "start", "step": 0, "plan": {"ranks": RANKS, "micro_batch_size": 6}}) + "\n")
    distributed.barrier()
    results["of the run"] = found(config, metrics)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    first, second = run_on_ranks(RANKS, on_ranks, tmp_path_factory.mktemp("auto"))
    assert {name: value for name, value in first.items()} == second
    return first


@pytest.mark.parametrize("family", MODELS)
def test_where_memory_is_plenty_one_micro_step_is_enough(results: dict, family: str) -> None:
    assert results[f"plenty of memory, {family}"] == GLOBAL_BATCH // RANKS
    assert list(results["remembered"].values()) == 2 * [GLOBAL_BATCH // RANKS]


def test_the_rank_with_least_room_decides(results: dict) -> None:
    assert results["scarce"] == 3


def test_it_is_found_once(results: dict) -> None:
    before, after = results["trials"]
    assert before > 0 and after == 0
    assert results["scarce, again"] == results["scarce, another lr"] == 3


def test_a_run_that_goes_on_keeps_its_own(results: dict) -> None:
    assert results["of the run"] == 6


def test_where_not_even_one_sample_fits_the_line_says_what_helps(results: dict) -> None:
    assert results["nothing fits"].startswith("not even one sample fits into the 0.0 GiB that are free for a rank; give train.activation_")
