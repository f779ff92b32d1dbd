"""The user's own folder of YAML files (`--config-dir`), and what is wrong with a file that Hydra gives up on, often without naming it."""

from pathlib import Path

import yaml

from pretrain.errors import UserError


def user_folder(config_dir: str | None) -> Path | None:
    """The folder, absolute. Raises UserError where there is none of that name."""
    if not config_dir:
        return None
    try:
        folder = Path(config_dir).expanduser().resolve()
        if folder.is_dir():
            return folder
    except (OSError, ValueError, RuntimeError):  # a name that no file can have; a user without a home
        pass
    raise UserError(f"--config-dir {config_dir} is not a folder; give one that holds YAML files such as experiment/mine.yaml")


def faulty_file(error: Exception, folder: Path) -> str | None:
    """One line on the first file in `folder` that explains `error`, which was raised while it was read; None where none does."""
    if isinstance(error, RecursionError):
        return f"in --config-dir {folder} a defaults list leads back to its own file; take that entry out"
    faults = (_fault(file, str(file.relative_to(folder))) for file in sorted(folder.rglob("*.yaml")))
    return next(filter(None, faults), None)


def _fault(file: Path, name: str) -> str | None:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"{name} cannot be read ({error.strerror}); it is to be a file"
    except UnicodeDecodeError as error:
        return f"{name} is not text in UTF-8 (byte {error.start}); mend the file"
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{name}{line} is not valid YAML ({error.problem}); mend the file"
    except yaml.YAMLError as error:
        return f"{name} is not valid YAML ({str(error).partition(chr(10))[0]}); mend the file"
    if not isinstance(values, dict | None):
        return f"{name} holds no settings; write them as key: value"
    defaults = (values or {}).get("defaults", [])
    if not isinstance(defaults, list) or not all(
        isinstance(entry, str) or (isinstance(entry, dict) and len(entry) == 1) for entry in defaults
    ):
        return f"the defaults of {name} are not a list of names; write defaults: [demo, {{override /model: bert_base}}, _self_]"
    return None
