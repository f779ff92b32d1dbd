"""The name of each run of a sweep, from those of its overrides that change the mathematics: the same on every layout and restart.

    bert_mini-adamw-lr_0.0001-seed_1

Only characters that need no quoting in a shell or in an override; the base is the run.name that the experiment or the user gives.
"""

import dataclasses
import hashlib
import json
import re

from pretrain.config.consistency import is_mathematical
from pretrain.config.location import group_choices
from pretrain.config.registry import PARTS, known_keys
from pretrain.config.schema import Config

LONGEST = 240
"""Characters of a name: a file system takes 255 bytes, and `NAME.yaml` and the like have to fit too."""
_HASH_CHARACTERS = 10


def run_name(overrides: list[str], config: Config, config_dir: str | None = None) -> str:
    """The name of the run with these `overrides` (one value each, as `expand` gives them), which were composed to `config`."""
    base, parts = config.run.name, {}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key == "experiment":
            if base != _unquoted(value):
                parts[key] = _plain(_unquoted(value))
        elif is_mathematical(key, config):
            parts[key] = _choice(key, _unquoted(value), config_dir) if key in PARTS else f"{_short(key)}_{_text(_value(key, config))}"
    return _cut("-".join([_plain(base, also="-"), *(parts[key] for key in sorted(parts))]))


def _choice(group: str, name: str, config_dir: str | None) -> str:
    """The choice alone, unless another group has one of that name too."""
    choices = group_choices(*([config_dir] if config_dir else []))
    alone = sum(name in names for names in choices.values()) <= 1
    return _plain(name) if alone else f"{group}_{_plain(name)}"


def _short(key: str) -> str:
    """The last part of a key where no other setting ends in it."""
    last = key.rpartition(".")[2]
    namesakes = [known for known in known_keys() if known.rpartition(".")[2] == last]
    return last if namesakes == [key] else _plain(key)


def _value(key: str, config: Config) -> object:
    """The typed value: 1e-4 and 0.0001 are the same number here."""
    value: object = dataclasses.asdict(config)
    for name in key.split("."):
        value = value[name]
    return value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    if isinstance(value, list):
        return "_".join(map(_text, value)) if value else "none"
    return _plain(value if isinstance(value, str) else json.dumps(value, sort_keys=True))


def _plain(text: str, also: str = "") -> str:
    """`text` in letters, digits, `_`, `.` and `also`; with a hash of the original where something had to be replaced."""
    plain = re.sub(rf"[^A-Za-z0-9_.{also}]", "_", text)
    return plain if plain == text and text else f"{plain}_{_hash(text)}"


def _unquoted(value: str) -> str:
    return value.strip("'\"")


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1 - _HASH_CHARACTERS]}-{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]
