"""A path as a user writes it: with `~` for a home, and perhaps one that no file can have."""

import errno
import os
from pathlib import Path

from pretrain.errors import UserError


def user_path(given: str | os.PathLike[str], setting: str = "") -> Path:
    """`given` with `~` and `~somebody` replaced by the home. `setting` stands in front of it in a message, as `run.dir=` or `--output `.

    Raises UserError where there is no such home, and where no file can be called so; whether there is one is not looked at.
    """
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:
        raise UserError(f"{setting}{given} begins with a home that this machine does not know; give the whole path") from error
    try:
        path.lstat()
    except ValueError as error:
        raise UserError(f"{setting}{given!r} is no path ({error}); give another one") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{setting}{given} is longer than the name of a file can be; give a shorter one") from error
    return path
