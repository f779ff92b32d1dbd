"""What the tests of clusters run on: a Slurm, two machines."""

from collections.abc import Iterator

import pytest

from tests.cluster.machines import TwoMachines, why_not
from tests.cluster.slurm import Slurm, missing_programs


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed here (no {', '.join(missing)}); on Debian: apt install slurm-wlm munge")
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def machines() -> Iterator[TwoMachines]:
    if reason := why_not():
        pytest.skip(reason)
    pair = TwoMachines()
    yield pair
    pair.remove()
