"""From the command line to a design and to the configurations of its runs."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pretrain.compare import variants
from pretrain.compare.design import MAY_DIFFER, MEASURED_BY, Design, Variant, refuse_twins, split, unequal
from pretrain.compare.search import Grid, Trial, centred
from pretrain.config.command_settings import parted, settings_of
from pretrain.config.compose import compose
from pretrain.config.consistency import mathematical_settings
from pretrain.config.schema import AUTO, CompareConfig, Config
from pretrain.errors import UserError
from pretrain.sweep.runs import Run
from pretrain.user_path import user_path

_EVALUATIONS = 20
"""During a run, at least: `steps to AdamW's score` is found among them."""


@dataclass(frozen=True)
class Comparison:
    """A design, where it lies, and how its runs are configured."""

    folder: Path
    design: Design
    configs: dict[str, Config]
    """Of each variant that the command names, with the first seed and some learning rate."""
    given: frozenset[str] = frozenset()
    """The variants whose grids the command gives."""

    def run(self, trial: Trial) -> Run:
        """The run of a trial, as a sweep starts it."""
        config = self.configs[trial.variant]
        return Run(
            dataclasses.replace(
                config,
                run=dataclasses.replace(config.run, dir=str(self.folder), name=trial.name, seed=trial.seed),
                optimizer=dataclasses.replace(config.optimizer, lr=trial.lr),
            ),
            (f"{trial.variant} optimizer.lr={trial.lr!r} run.seed={trial.seed}",),
        )


def read_command(overrides: list[str], config_dir: str | None) -> Comparison:
    """The comparison that the command line asks for. Raises UserError for a mistake, and where its runs would not be equal."""
    own, of_runs = parted(overrides, "compare")
    asked = settings_of(CompareConfig, "compare", own)
    _refuse_what_is_compared(of_runs, asked)
    configs = {name: _configured(name, asked, of_runs, config_dir) for name in asked.optimizers}
    for key, named in (("lrs", asked.lrs), ("variants", asked.variants)):
        for name in named:
            if name not in configs:
                raise UserError(f"compare.{key}.{name}: {name} is not among compare.optimizers, {', '.join(configs)}; add it there")
    first = configs[asked.optimizers[0]]
    if first.train.micro_batch_size == AUTO:
        raise UserError("train.micro_batch_size=auto may find another one for each optimizer; give a number, which all runs then have")
    seeds = asked.seeds if isinstance(asked.seeds, list) else range(first.run.seed, first.run.seed + asked.seeds)
    folder = user_path(first.run.dir, "run.dir=") / (asked.name or f"compare-{first.run.name}")
    found = _variants(configs, asked)
    refuse_twins(found)
    return Comparison(folder, Design(_shared(configs), found, tuple(seeds)), configs, frozenset(asked.lrs))


def _refuse_what_is_compared(overrides: Iterable[str], asked: CompareConfig) -> None:
    instead = {
        "optimizer": "compare.optimizers=[came,adamw]",
        "optimizer.lr": "compare.lrs.NAME=[1e-4,2e-4]",
        "run.resume": "the same command again, which goes on",
        "run.dry_run": "--dry-run",
        **({"run.seed": "all of them in compare.seeds"} if isinstance(asked.seeds, list) else {}),
    }
    for override in overrides:
        key = _key(override)
        if key in instead:
            raise UserError(f"{override}: a comparison sets {key} itself; give {instead[key]}")
    for name, settings in asked.variants.items():
        for setting in settings:
            if _key(setting) == "optimizer.lr":
                raise UserError(f"compare.variants.{name}: a comparison sets optimizer.lr itself; give compare.lrs.{name}=[1e-4,2e-4]")
            if (key := _key(setting)) != "optimizer" and not key.startswith(MAY_DIFFER):
                raise UserError(
                    f"compare.variants.{name}: {setting} would make its runs unequal to the others; a variant has optimizer, optimizer.*, "
                    "train.grad_clip and train.spike_sigma of its own, and all else is given for all"
                )


def _configured(name: str, asked: CompareConfig, overrides: list[str], config_dir: str | None) -> Config:
    chosen = variants.settings_of(name, asked.variants)
    try:
        config = compose([*overrides, *chosen], config_dir)
    except UserError as error:
        raise UserError(f"in {name}: {error}") from error
    train = config.train
    often = max(1, train.num_steps // _EVALUATIONS)
    if not 0 < train.eval_every_steps <= often:
        train = dataclasses.replace(train, eval_every_steps=often)
    export = config.run.export and "run.export" in map(_key, overrides)
    return dataclasses.replace(config, train=train, run=dataclasses.replace(config.run, export=export))


def _shared(configs: dict[str, Config]) -> dict[str, object]:
    """What all have in common. Raises UserError where a variant changes more than is its own."""
    (first, config), *others = configs.items()
    shared = _equal_part(config)
    for name, other in others:
        if differences := unequal(shared, _equal_part(other)):
            raise UserError(f"{first} and {name} would not be equal ({'; '.join(differences)}); give what differs for all of them")
    return shared


def _equal_part(config: Config) -> dict[str, object]:
    measured_by = {key: getattr(config.train, key.removeprefix("train.")) for key in MEASURED_BY}
    return split(mathematical_settings(config))[0] | measured_by


def _variants(configs: dict[str, Config], asked: CompareConfig) -> dict[str, Variant]:
    found = {}
    for name, config in configs.items():
        rates = asked.lrs.get(name) or centred(variants.ADVICE[config.optimizer.name].at(config.train.global_batch_size), asked.rates)
        grid = Grid(tuple(sorted(map(float, rates))), max(asked.most_rates, len(rates)))
        found[name] = Variant(name, split(mathematical_settings(config))[1], grid)
    return found


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]
