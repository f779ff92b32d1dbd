"""The dataclasses of `schema/` by group: given to Hydra, which checks every YAML file against the one named in its defaults list."""

import dataclasses
from collections.abc import Iterator

from pretrain.config import schema

PARTS = tuple(field.name for field in dataclasses.fields(schema.Config))
"""run, train, model, ...: the keys before the dot."""

SCHEMAS: dict[str, dict[str, type]] = {
    "model": {"bert": schema.BertConfig, "gpt2": schema.Gpt2Config},
    "data": {
        "stdlib": schema.StdlibDataConfig,
        "text": schema.TextDataConfig,
        "hub": schema.HubDataConfig,
        "mixture": schema.MixtureDataConfig,
        "prepared": schema.PreparedDataConfig,
    },
    "objective": {"mlm": schema.MlmConfig, "mlm_nsp": schema.MlmNspConfig, "clm": schema.ClmConfig},
    "optimizer": {
        "came": schema.CameConfig,
        "adamw": schema.AdamWConfig,
        "lamb": schema.LambConfig,
        "adafactor": schema.AdafactorConfig,
        "sm3": schema.Sm3Config,
    },
    "schedule": {"schedule": schema.ScheduleConfig},
    "zero": {"zero": schema.ZeroConfig},
    "tracker": {"wandb": schema.WandbConfig, "none": schema.NoTrackerConfig},
}
"""group -> name -> dataclass; a YAML file names it as `<name>_schema`."""

_ONLY_ONE: dict[str, type] = {
    "run": schema.RunConfig,
    "train": schema.TrainConfig,
    "tokenizer": schema.TokenizerConfig,
    "checkpoint": schema.CheckpointConfig,
    "launch": schema.LaunchConfig,
}
"""Parts without a choice."""

_NAMED_BY = {"model": "family", "data": "kind", "objective": "kind", "optimizer": "name", "tracker": "kind"}
"""The field that holds a dataclass's name in `SCHEMAS`, where a group has several."""


def register() -> None:
    """Make the dataclasses known to Hydra; again is harmless."""
    from hydra.core.config_store import ConfigStore  # ranks need the rest alone

    store = ConfigStore.instance()
    store.store(name="config_schema", node=schema.Config)
    for group, classes in SCHEMAS.items():
        for name, cls in classes.items():
            store.store(group=group, name=f"{name}_schema", node=cls)


def dataclass_of(part: str, values: dict) -> type:
    """The dataclass that the plain values of one part of a config belong to."""
    if part not in SCHEMAS:
        return _ONLY_ONE[part]
    name = values.get(_NAMED_BY[part]) if part in _NAMED_BY else part
    return SCHEMAS[part][name]


def misnamed(config: schema.Config) -> Iterator[tuple[str, str]]:
    """(key, value) of every naming field that was overridden away from its own dataclass."""
    for part, field in _NAMED_BY.items():
        owner = getattr(config, part)
        if SCHEMAS[part].get(getattr(owner, field)) is not type(owner):
            yield f"{part}.{field}", getattr(owner, field)


def known_keys() -> dict[str, object]:
    """Every key that some choice of groups has, `train.num_steps` for example, with its type."""
    keys: dict[str, object] = {}
    for part in dataclasses.fields(schema.Config):
        for cls in SCHEMAS.get(part.name, {part.name: part.type}).values():
            keys |= {f"{part.name}.{field.name}": field.type for field in dataclasses.fields(cls)}
    return keys
