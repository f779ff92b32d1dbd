"""The stated formulae give the published figures."""

import numpy as np
import pytest
import torch

from pretrain.config.compose import compose
from pretrain.config.schema import ClmConfig, Config, MlmConfig, MlmNspConfig
from pretrain.data.batches import make_batches
from pretrain.data.masking import max_predictions
from pretrain.data.micro_batches import micro_batches
from pretrain.model.flops import Utilisation, Work, flops, peak_flops_per_second, work_of
from tests.unit.data.corpora import random_documents, synthetic


def full_sequence(config: Config) -> Work:
    """A sequence without padding."""
    length = config.data.max_seq_length
    targets = length if config.objective.kind == "clm" else max_predictions(config.objective, length)
    return Work(tokens=length, pairs=length * length, targets=targets)


@pytest.mark.parametrize(
    ("experiment", "vocabulary", "per_token", "wanted"),
    [
        ("bert_32k", 30528, False, 240.6e9),
        ("gpt2_small", 50304, True, 0.860e9),
        ("gpt2_medium", 50304, True, 2.425e9),
        ("gpt2_xl", 50304, True, 10.28e9),
    ],
)
def test_flops_of_the_published_models(experiment: str, vocabulary: int, per_token: bool, wanted: float) -> None:
    config = compose([f"+experiment={experiment}"])
    found = flops(config, vocabulary, full_sequence(config)) / (config.data.max_seq_length if per_token else 1)
    assert found == pytest.approx(wanted, rel=2e-3)


def test_peaks_are_known_by_the_name_of_the_device() -> None:
    assert peak_flops_per_second("NVIDIA H200") == peak_flops_per_second("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops_per_second("NVIDIA H100 PCIe") == 756e12
    assert peak_flops_per_second("NVIDIA A100-SXM4-40GB") == peak_flops_per_second("NVIDIA A100 80GB PCIe") == 312e12
    assert peak_flops_per_second("Tesla V100-SXM2-16GB") == 125e12 and peak_flops_per_second("Tesla V100-PCIE-16GB") == 112e12
    assert peak_flops_per_second("NVIDIA GeForce RTX 4090") == 165.2e12
    assert (peak_flops_per_second("NVIDIA L4"), peak_flops_per_second("NVIDIA L40S")) == (121e12, 362e12)


@pytest.mark.parametrize("name", ["some CPU", "NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", ""])
def test_other_devices_are_not_taken_for_known_ones(name: str) -> None:
    assert peak_flops_per_second(name) is None


@pytest.mark.parametrize("objective", [MlmNspConfig(), MlmConfig(), ClmConfig()], ids=lambda objective: objective.kind)
def test_work_is_counted_on_what_is_there(objective: MlmConfig | ClmConfig) -> None:
    fields = make_batches(synthetic(random_documents(60, seed=1)), "train", objective, 32, seed=0).batch(np.arange(24))
    lengths = fields["attention_mask"].sum(axis=1) if "attention_mask" in fields else np.full(24, 32)
    labels = fields["labels" if objective.kind == "clm" else "masked_labels"]
    found = sum(
        (work_of({name: torch.from_numpy(values) for name, values in batch.items()}) for batch in micro_batches(fields, 4)), start=Work()
    )
    assert found == Work(tokens=lengths.sum(), pairs=(lengths**2).sum(), targets=(labels != -100).sum())


def test_utilisation_is_the_mean_over_the_steps_since_it_was_read() -> None:
    config = compose(["+experiment=gpt2_small"])
    sequence = {"input_ids": torch.zeros(1, 1024, dtype=torch.long), "labels": torch.zeros(1, 1024, dtype=torch.long)}
    whole = flops(config, 50304, full_sequence(config))
    utilisation = Utilisation(config, 50304, "NVIDIA H200")
    utilisation.add([sequence, sequence])
    utilisation.add([sequence, sequence, sequence, sequence])
    assert utilisation.read(step_seconds=0.5) == pytest.approx(3 * whole / 0.5 / 989e12)
    utilisation.add([sequence])
    assert utilisation.read(step_seconds=0.5) == pytest.approx(whole / 0.5 / 989e12)
    assert Utilisation(config, 50304, "a CPU").read(1.0) is None


@pytest.mark.parametrize("device", ["NVIDIA H200", "a CPU"])
def test_a_user_says_what_the_device_can_do(device: str) -> None:
    config = compose(["+experiment=gpt2_small", "train.device_peak_tflops=50"])
    sequence = {"input_ids": torch.zeros(1, 1024, dtype=torch.long), "labels": torch.zeros(1, 1024, dtype=torch.long)}
    utilisation = Utilisation(config, 50304, device)
    utilisation.add([sequence])
    assert utilisation.read(step_seconds=1.0) == pytest.approx(flops(config, 50304, full_sequence(config)) / 50e12)
