"""What most tests of faults begin with: a folder with a small corpus, and runs in it."""

from pathlib import Path

import pytest

from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import ForkedRuns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared once for all runs of a file."""
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.txt")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> ForkedRuns:
    return ForkedRuns(folder)
