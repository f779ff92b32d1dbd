"""The stated formulae give the published figures."""

import pytest

from pretrain.config.compose import compose
from pretrain.model.flops import flops_per_sample, peak_flops_per_second


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
    found = flops_per_sample(config, vocabulary) / (config.data.max_seq_length if per_token else 1)
    assert found == pytest.approx(wanted, rel=2e-3)


def test_peaks_are_known_by_the_name_of_the_device() -> None:
    assert peak_flops_per_second("NVIDIA H200") == peak_flops_per_second("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops_per_second("some CPU") is None
