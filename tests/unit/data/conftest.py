"""Text and corpora prepared from it, made once for all tests."""

from pathlib import Path

import pytest

from pretrain.config.schema import TextDataConfig
from pretrain.data.prepare import prepare
from pretrain.data.prepared import Prepared, open_prepared
from tests.unit.data.corpora import english, make_config


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text(english(150), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bert(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = TextDataConfig(paths=[str(text_file)], cache_dir=str(tmp_path_factory.mktemp("cache")), validation_fraction=0.1)
    return open_prepared(prepare(make_config("bert", data, vocab_size=300), progress=False))


@pytest.fixture(scope="session")
def gpt2(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = TextDataConfig(paths=[str(text_file)], cache_dir=str(tmp_path_factory.mktemp("cache")), validation_fraction=0.1)
    return open_prepared(prepare(make_config("gpt2", data, vocab_size=400), progress=False))
