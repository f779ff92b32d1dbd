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
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark and (marked := Path(error.problem_mark.name)).is_relative_to(folder):
        return _not_yaml(error, str(marked.relative_to(folder)))
    faults = (_fault(file, str(file.relative_to(folder))) for file in sorted(folder.rglob("*.yaml")))
    return next(filter(None, faults), None)


def _fault(file: Path, name: str) -> str | None:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"{name} cannot be read ({error.strerror}); it is to be a file"
    except UnicodeDecodeError as error:
        return f"{name} is not text in UTF-8 (byte {error.start}); mend the file"
    except yaml.YAMLError as error:
        return _not_yaml(error, name)
    if not isinstance(values, dict | None):
        return f"{name} holds no settings; write them as key: value"
    defaults = (values or {}).get("defaults", [])
    if not isinstance(defaults, list) or not all(
        isinstance(entry, str) or (isinstance(entry, dict) and len(entry) == 1) for entry in defaults
    ):
        return f"the defaults of {name} are not a list of names; write defaults: [demo, {{override /model: bert_base}}, _self_]"
    for part, settings in (values or {}).items():
        for key in (part, *(settings if isinstance(settings, dict) else ())):
            if not isinstance(key, str):
                return f"{name}: under {part} stands the key {key}, which is not a name; mend the file"
    return None


def _not_yaml(error: yaml.YAMLError, name: str) -> str:
    line = f", line {error.problem_mark.line + 1}" if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else ""
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{name}{line} is not valid YAML ({problem}); mend the file"
