"""Data sets of the Hugging Face hub, or folders in a data set's layout, read by the `datasets` library."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pretrain.data.parts import STRETCH_BYTES, Part, of_record
from pretrain.data.reading import ReadLog
from pretrain.errors import Unfinished, UserError
from pretrain.hub_files import NotOnTheHub
from pretrain.user_path import user_path


@dataclass(frozen=True)
class HubDataset:
    """One split of a data set, as `datasets.load_dataset` takes it."""

    name: str
    subset: str | None
    split: str
    revision: str | None
    text_field: str
    streaming: bool

    @property
    def folder(self) -> Path | None:
        """Where the data set is a folder on this machine."""
        path = user_path(self.name, "data.name=")
        return path if path.is_dir() else None

    def parts(self) -> list[Part]:
        """Its shards (streaming), or stretches of its rows (downloaded). Raises UserError where it cannot be had."""
        with self._errors():
            rows = _load(self)
            columns = rows.column_names or list(next(iter(rows), {}))
        if self.text_field not in columns:
            raise UserError(f"data.name={self.name} has no column {self.text_field!r} but {', '.join(columns)}; give data.text_field=...")
        size = (rows.info.dataset_size or 0) if self.streaming else rows.data.nbytes
        num_parts = rows.num_shards if self.streaming else min(max(1, len(rows)), -(-size // STRETCH_BYTES) or 1)
        return [HubShard(self, index, num_parts, size // num_parts) for index in range(num_parts)]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What `datasets` and the hub object to, in one line with the mend."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the library's errors have no common ancestor
            kind = UserError if self.folder else Unfinished
            raise kind(f"data.name={self.name} cannot be read: {_first_line(error)}; {_mend(self, error)}") from error


@dataclass(frozen=True)
class HubShard:
    """One of `num_parts` equal pieces of a data set."""

    dataset: HubDataset
    index: int
    num_parts: int
    size_bytes: int

    @property
    def name(self) -> str:
        return f"{self.dataset.name} {self.dataset.split} ({self.index + 1} of {self.num_parts})"

    def documents(self, log: ReadLog) -> Iterator[str]:
        told = 0
        with self.dataset._errors():
            field = self.dataset.text_field
            rows = _load(self.dataset).select_columns([field])
            contiguous = {} if self.dataset.streaming else {"contiguous": True}
            for row in rows.shard(num_shards=self.num_parts, index=self.index, **contiguous):
                log.lines += 1
                text = row[field]
                if told < self.size_bytes and text:
                    told += len(text)
                    log.on_bytes(len(text))
                yield from of_record(text, log)
        log.on_bytes(max(0, self.size_bytes - told))
        log.check()


def columns_of(name: str, subset: str | None, split: str, columns: Sequence[str]) -> list[list[Any]]:
    """The whole of some columns of one split, downloaded once. Raises NotOnTheHub."""
    try:
        rows = _load(HubDataset(name, subset, split, revision=None, text_field="", streaming=False))
        return [list(rows[column]) for column in columns]
    except Exception as error:  # the library's errors have no common ancestor
        raise NotOnTheHub(_first_line(error)) from error


@lru_cache(maxsize=4)
def _load(dataset: HubDataset) -> Any:
    import datasets

    logging.getLogger("datasets").setLevel(logging.ERROR)
    if not os.isatty(2):
        datasets.disable_progress_bars()
    name = str(dataset.folder) if dataset.folder else dataset.name
    return datasets.load_dataset(name, dataset.subset, split=dataset.split, revision=dataset.revision, streaming=dataset.streaming)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _mend(dataset: HubDataset, error: Exception) -> str:
    """By what the message speaks of: the library has few exception classes and many messages."""
    said = str(error)
    if "Config name is missing" in said or "BuilderConfig" in said:
        return "give one of its configurations as data.subset=..."
    if "split" in said.lower() and dataset.split in said:
        return "give one of its splits as data.split=... (and data.valid_split=...)"
    if "script" in said:
        return "name a repository of parquet files, or try data.revision=refs/convert/parquet"
    if "gated" in said.lower() or "401" in said:
        return "ask for access on its page and give HF_TOKEN"
    if dataset.streaming and not dataset.folder:
        return "check the name and the connection; the same command goes on where it stopped"
    return "check the name and that the folder holds parquet, json or text files"
