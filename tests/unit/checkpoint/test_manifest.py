"""A checkpoint of a real optimizer: every file cut or bent in turn is found and named; nothing in it is executed."""

import itertools
import json
import os
import pickle
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

import came
from came import checkpoint as came_checkpoint
from came.safe_reading import UnsafeCheckpoint
from pretrain.checkpoint import manifest
from pretrain.checkpoint.manifest import Damaged
from pretrain.checkpoint.progress import Progress
from pretrain.checkpoint.restoring import check

PROGRESS = Progress(step=7, skipped_steps=2, loss_scale=4.0, recent_grad_norms=[0.1, 1 / 3])


def finish(folder: Path) -> Path:
    files = manifest.described(folder, [path.name for path in folder.iterdir() if path.name != manifest.MANIFEST])
    manifest.write(folder, asdict(PROGRESS), files, {"config": {"run": {"name": "é"}}})
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    weight = torch.nn.Parameter(torch.randn(5, 3))
    optimizer = came.CAME([weight])
    weight.grad = torch.randn(5, 3)
    optimizer.step()
    came_checkpoint.write(came_checkpoint.state_dict(optimizer, {weight: "w"}), folder)
    return finish(folder)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_whole_one_is_whole(whole: Path) -> None:
    found = check(whole)
    assert manifest.progress_of(found) == PROGRESS and found["config"]["run"]["name"] == "é"
    assert sorted(found["files"]) == [".metadata", "__0_0.distcp"]
    assert manifest.total_bytes(found) == sum(path.stat().st_size for path in whole.iterdir() if path.name != manifest.MANIFEST)


FILES = [".metadata", "__0_0.distcp", manifest.MANIFEST]


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_found_wherever_it_is_cut(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for length in [*range(0, len(content), 1 + len(content) // 50), len(content) - 1]:
        (copy / name).write_bytes(content[:length])
        with pytest.raises(Damaged, match=name):
            check(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_wherever_it_is(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    places = range(len(content)) if name == manifest.MANIFEST else range(0, len(content), 1 + len(content) // 100)
    for place, bit in itertools.product(places, (0, 3, 5, 7)):
        bent = bytearray(content)
        bent[place] ^= 1 << bit
        (copy / name).write_bytes(bent)
        with pytest.raises(Damaged, match=name):
            check(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(Damaged, match=f"{name} is missing"):
        check(copy)


def test_the_ranks_share_the_reading(copy: Path) -> None:
    (copy / "__0_0.distcp").write_bytes(bytes((copy / "__0_0.distcp").stat().st_size))
    check(copy, (0, 2))  # .metadata
    with pytest.raises(Damaged, match="__0_0.distcp does not match"):
        check(copy, (1, 2))


def test_counts_can_be_replaced_alone(copy: Path) -> None:
    found = manifest.read(copy)
    manifest.write(copy, asdict(Progress(step=7, skipped_steps=3)), found["files"], {"config": found["config"]})
    assert manifest.progress_of(check(copy)).skipped_steps == 3


def test_another_format_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 99)
    with pytest.raises(Damaged, match="version 1, this release reads 99"):
        manifest.read(copy)


# Nothing is executed -----------------------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.witness),)


def refused(folder: Path) -> str:
    """Every way of reading refuses it, with its checksums in order."""
    finish(folder)
    with pytest.raises(Damaged) as damaged:
        check(folder)
    for read in (came_checkpoint.load_masters, came_checkpoint.load_whole, came_checkpoint.sizes):
        with pytest.raises(UnsafeCheckpoint):
            read(folder)
    weight = torch.nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(UnsafeCheckpoint):
        came_checkpoint.load(came.CAME([weight]), {weight: "w"}, folder)
    return str(damaged.value)


def test_a_planted_pickle_is_refused(copy: Path, tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    (copy / ".metadata").write_bytes(pickle.dumps(Malicious(witness)))
    assert "mkdir" in refused(copy)
    assert not witness.exists()
    pickle.loads((copy / ".metadata").read_bytes())
    assert witness.exists()  # the test would have seen it


def test_a_planted_pickle_among_true_metadata_is_refused(copy: Path, tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    metadata = dcp.FileSystemReader(copy).read_metadata()
    metadata.planner_data = Malicious(witness)
    (copy / ".metadata").write_bytes(pickle.dumps(metadata))
    assert "mkdir" in refused(copy)
    assert not witness.exists()


def test_an_item_that_would_be_unpickled_is_refused(tmp_path: Path) -> None:
    """torch.distributed.checkpoint loads such items with weights_only=False."""
    witness, folder = tmp_path / "executed", tmp_path / "checkpoint"
    dcp.save({"w/master": Malicious(witness)}, checkpoint_id=folder, no_dist=True)
    assert "BytesStorageMetadata" in refused(folder)
    assert not witness.exists()


def test_files_outside_the_folder_are_refused(copy: Path) -> None:
    metadata = dcp.FileSystemReader(copy).read_metadata()
    for info in metadata.storage_data.values():
        object.__setattr__(info, "relative_path", "../elsewhere/__0_0.distcp")
    (copy / ".metadata").write_bytes(pickle.dumps(metadata))
    assert "outside its folder" in refused(copy)


def test_the_manifest_is_plain_json(whole: Path) -> None:
    assert json.loads((whole / manifest.MANIFEST).read_text())["progress"] == asdict(PROGRESS)
