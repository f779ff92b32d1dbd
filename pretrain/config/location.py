"""Where the YAML files are, and which choices they offer. Plain Python: `--help` reads this without Hydra."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def configs_dir() -> Path:
    """The folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    packaged = _PACKAGE / "_configs"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "configs"


def group_choices(*more_dirs: str | Path) -> dict[str, list[str]]:
    """The choices of every group, `{"model": ["bert_base", ...], ...}`, from `configs/` and the user's own folders."""
    choices: dict[str, set[str]] = {}
    for folder in (configs_dir(), *map(Path, more_dirs)):
        for file in folder.glob("*/*.yaml"):
            choices.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(choices.items())}
