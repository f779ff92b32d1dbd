"""Every rank trains on the same prepared data, or none does."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from pretrain import distributed
from pretrain.data.prepared import Prepared, open_prepared
from pretrain.errors import UserError

_LAG_SECONDS = 5.0
"""A network file system may show a new folder late."""


def open_on_all_ranks(folder: Path) -> Prepared:
    """The prepared folder, which every rank must see alike; a collective call.

    Raises UserError, the same on all ranks, where rank 0's folder is damaged or another rank does not see it.
    """
    prepared, problem = _open(folder)
    found = distributed.gather_objects((socket.gethostname(), str(folder), prepared.fingerprint if prepared else None, problem))
    first_host, place, fingerprint, first_problem = found[0]
    if first_problem:
        raise UserError(first_problem)
    for rank, (host, _, seen, _) in enumerate(found):
        if seen != fingerprint:
            what = "does not see the data" if seen is None else "sees other data than those"
            raise UserError(
                f"rank {rank} on {host} {what} that rank 0 on {first_host} has in {place}: the file system is not shared; "
                f"give a data.cache_dir that all nodes share, or run python -m pretrain.prepare on every node"
            )
    assert prepared is not None
    return prepared


def _open(folder: Path) -> tuple[Prepared | None, str | None]:
    deadline = time.monotonic() + (0.0 if distributed.is_main() else _LAG_SECONDS)
    while True:
        try:
            return open_prepared(folder), None
        except (UserError, OSError) as error:
            if time.monotonic() >= deadline:
                return None, str(error)
        with suppress(OSError):
            os.listdir(folder.parent)  # makes a network file system look again
        time.sleep(0.5)
