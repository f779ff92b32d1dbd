"""One comparison of three optimizers over four seeds, which the tests look at and copy."""

import pytest

from pretrain.compare.composing import Comparison
from pretrain.compare.summary import Summary, summarise
from tests.made_comparison import THREE, make_comparison, world


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return make_comparison(tmp_path_factory.mktemp("runs"), world, *THREE, monkeypatch=monkeypatch)


@pytest.fixture(scope="session")
def summary(made: Comparison) -> Summary:
    return summarise({made.folder: made.design})
