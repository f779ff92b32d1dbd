"""Offline files of Weights & Biases (`run-ID.wandb`) as lines of metrics.jsonl: what was recorded where only they are at hand.

The file is a LevelDB log: blocks of 32 KiB, records in them whole or in pieces, each piece with its CRC-32, length and type; a record
is one protobuf message. The tail of a run that was killed may be torn: what comes before it counts.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretrain.errors import UserError
from pretrain.metrics import Line
from pretrain.wandb_follower import AXES

_MAGIC = b":W&B"
_FILE_HEADER_BYTES = 7
_BLOCK_BYTES = 32768
_PIECE = struct.Struct("<IHB")  # CRC-32 of type and content, length, type
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbFile:
    """One offline file, read whole."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where it is no such file, or cannot be read."""
        self.lines: list[Line] = []
        """As in metrics.jsonl, superseded ones included; without what is no number."""
        self.config: dict[str, Any] = {}
        """What the run was begun with: the configuration, the plan, versions, git revision."""
        self.run_id, self.name = "", ""
        self.closed = False
        """Its writer has come to its end, whatever became of the run."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); see to its permissions") from error
        if not content.startswith(_MAGIC):
            raise UserError(f"{path} is no offline file of Weights & Biases; give a run's folder, or a run-ID.wandb from its wandb/ folder")
        from wandb.proto import wandb_internal_pb2 as messages

        for record in map(messages.Record.FromString, _records(content)):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run_id, self.name = record.run.run_id, record.run.display_name
                self._configure(record.run.config)
            elif kind == "config":
                self._configure(record.config)
            elif kind == "history":
                self.lines += _lines_of({item.key or "/".join(item.nested_key): item for item in record.history.item})
            elif kind == "exit":
                self.closed = True

    def _configure(self, config: Any) -> None:
        for item in config.update:
            if item.key and item.key != "_wandb":
                self.config[item.key] = json.loads(item.value_json)


def _lines_of(items: dict[str, Any]) -> list[Line]:
    """One row: `train/loss` belongs to a line of the kind train, and the axes to all; W&B's own values have no such name."""
    values = {name: json.loads(item.value_json) for name, item in items.items() if name in AXES or "/" in name}
    axes = {"step": 0} | {axis: values.pop(axis) for axis in AXES if axis in values}
    lines: dict[str, Line] = {}
    for name, value in values.items():
        kind, _, metric = name.partition("/")
        lines.setdefault(kind, {"kind": kind, **axes})[metric] = value
    return list(lines.values())


def _records(content: bytes) -> Iterator[bytes]:
    place, pieces = _FILE_HEADER_BYTES, b""
    while place + _PIECE.size <= len(content):
        left_in_block = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left_in_block < _PIECE.size:
            place += left_in_block
            continue
        checksum, length, kind = _PIECE.unpack_from(content, place)
        piece = content[place + _PIECE.size : place + _PIECE.size + length]
        if len(piece) < length or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            return  # torn by a kill
        place += _PIECE.size + length
        pieces = piece if kind in (_WHOLE, _FIRST) else pieces + piece
        if kind in (_WHOLE, _LAST):
            yield pieces
