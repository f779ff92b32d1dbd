"""Reading a checkpoint without executing anything that is in it.

torch.distributed.checkpoint keeps its metadata as a pickle, and a pickle may call whatever it names. This reader lets it name the
few plain classes that the metadata of tensors consist of, and nothing else; tensors themselves are read with `weights_only`.
"""

import pickle
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from torch.distributed.checkpoint import FileSystemReader, metadata
from torch.distributed.checkpoint.filesystem import _StorageInfo

_CLASSES = {
    f"{cls.__module__}.{cls.__qualname__}": cls
    for cls in (
        metadata.Metadata,
        metadata.MetadataIndex,
        metadata.StorageMeta,
        metadata.TensorStorageMetadata,  # not BytesStorageMetadata: such items would be unpickled in turn
        metadata.ChunkStorageMetadata,
        metadata.TensorProperties,
        metadata._MEM_FORMAT_ENCODING,
        _StorageInfo,
    )
}
_PLAIN = {
    "torch.Size": torch.Size,
    "torch.serialization._get_layout": lambda name: torch.strided,
    **{f"{module}.{name}Path": PurePosixPath for module in ("pathlib", "pathlib._local") for name in ("Posix", "PurePosix")},
}
_DTYPES = {str(dtype): dtype for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8)}
_ALLOWED: dict[str, Any] = _CLASSES | _PLAIN | _DTYPES


class UnsafeCheckpoint(RuntimeError):
    """The metadata of a checkpoint hold what no checkpoint of ours does; nothing of it was executed."""


class SafeReader(FileSystemReader):
    """`FileSystemReader` for checkpoints of tensors alone. Raises UnsafeCheckpoint for any other."""

    _found: metadata.Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        """Read once, however often it is asked for."""
        if self._found is None:
            self._found = self._read(Path(self.path, ".metadata"))
        return self._found

    def _read(self, path: Path) -> metadata.Metadata:
        with path.open("rb") as file:
            try:
                found = _Unpickler(file).load()
            except UnsafeCheckpoint:
                raise
            except Exception as error:  # a pickle that is cut or bent fails in any way
                raise UnsafeCheckpoint(f"{path} is not the metadata of a checkpoint ({type(error).__name__}: {error})") from error
        _refuse_unless_of_tensors(found, path)
        found.storage_meta.load_id = self.load_id
        return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise UnsafeCheckpoint(f"the metadata name {module}.{name}, which no checkpoint does; nothing of it was executed") from None


def _refuse_unless_of_tensors(found: Any, path: Path) -> None:
    entries = found.state_dict_metadata.values() if isinstance(found, metadata.Metadata) else [None]
    if not all(isinstance(entry, metadata.TensorStorageMetadata) for entry in entries):
        raise UnsafeCheckpoint(f"{path} does not list tensors alone")
    files = {info.relative_path for info in found.storage_data.values()}
    if any(Path(file).name != file for file in files):
        raise UnsafeCheckpoint(f"{path} names files outside its folder: {sorted(files)[:3]}")
