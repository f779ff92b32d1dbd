"""What a comparison consists of, kept in its folder: the settings that all its runs share, its variants with their grids, its seeds.

The tokens, their order, the model, its initial weights and the shape of the schedule are the same in all runs. A variant that would
change them is refused, and so is a second comparison in the same folder, or in the same table, whose runs would not be equal to these.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pretrain import durable
from pretrain.compare.search import Grid, Trial, trial_named
from pretrain.errors import UserError

FILE = "comparison.yaml"

MAY_DIFFER = ("optimizer.", "train.grad_clip", "train.spike_sigma")
"""Beginnings of the settings that are a variant's own; the table's head states those that are not the optimizer's."""
MEASURED_BY = ("train.eval_samples", "train.eval_every_steps", "train.max_skipped_steps")
"""Settings that change no number of a run but how it is judged: the same in all runs too."""
_OF_ONE_RUN = ("run.seed",)


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    name: str
    settings: dict[str, Any]
    """Flat, of the whole configuration: those in which variants may differ, the learning rate left out."""
    grid: Grid


@dataclass(frozen=True)
class Design:
    """A comparison, without where it lies."""

    shared: dict[str, Any]
    """The mathematical settings, flat, that are the same in all its runs."""
    variants: dict[str, Variant]
    seeds: tuple[int, ...]

    @property
    def grids(self) -> dict[str, Grid]:
        return {name: variant.grid for name, variant in self.variants.items()}

    def trials_so_far(self, folder: Path) -> Iterable[Trial]:
        """Those of which there is a run's folder, by its name."""
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            trial = trial_named(path.name)
            if trial and trial.variant in self.variants and trial.seed in self.seeds and (path / "config.yaml").exists():
                yield trial


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a run, flat, in two: (what all runs of a comparison share, what is its variant's own)."""
    own = {key: value for key, value in settings.items() if key.startswith(MAY_DIFFER) and key != "optimizer.lr"}
    shared = {key: value for key, value in settings.items() if not key.startswith(MAY_DIFFER) and key not in _OF_ONE_RUN}
    return shared, own


def unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings in which two comparisons, or two runs of one, differ although they must not."""
    keys = dict.fromkeys([*one, *other])
    return [f"{key}: {one.get(key, 'none')} and {other.get(key, 'none')}" for key in keys if one.get(key) != other.get(key)]


def extended(stored: Design, asked: Design, folder: Path, given: Collection[str] = ()) -> Design:
    """What `asked` adds to a comparison that has begun: variants, seeds, and the rates of those variants whose grids are `given`.

    Raises UserError where its runs would be unequal.
    """
    if differences := unequal(stored.shared, asked.shared):
        raise UserError(
            f"{folder} holds a comparison of other runs ({'; '.join(differences)}), and unequal ones cannot stand in one table; "
            "give compare.name=..., or the settings that it has"
        )
    lost = [seed for seed in stored.seeds if seed not in asked.seeds]
    if lost or stored.seeds[0] != asked.seeds[0]:
        raise UserError(
            f"{folder} compares over the seeds {_listed(stored.seeds)}, and {_listed(asked.seeds)} are not those and more; "
            "give compare.name=..., or its seeds in front: every variant has the same ones"
        )
    for name, variant in asked.variants.items():
        if name in stored.variants and (changed := unequal(stored.variants[name].settings, variant.settings)):
            raise UserError(f"{name} is another optimizer in {folder} ({'; '.join(changed)}); give the variant a name of its own")
    variants = dict(stored.variants)
    for name, variant in asked.variants.items():
        earlier = variants.get(name, variant).grid
        rates = {*earlier.rates, *variant.grid.rates} if name in given else set(earlier.rates)
        variants[name] = replace(variant, grid=Grid(tuple(sorted(rates)), max(earlier.most, variant.grid.most)))
    refuse_twins(variants)
    return Design(stored.shared, variants, asked.seeds)


def refuse_twins(variants: Mapping[str, Variant]) -> None:
    """Raises UserError where two have the same settings: the same runs twice would say nothing, and weaken every test."""
    seen: dict[str, str] = {}
    for name, variant in variants.items():
        if (twin := seen.setdefault(str(sorted(variant.settings.items())), name)) != name:
            raise UserError(f"{twin} and {name} are the same optimizer with these settings; leave one of them out")


def merged(designs: Mapping[Path, Design]) -> Design:
    """One table's design out of several folders'. Raises UserError where their runs are not equal, or one variant is in two of them."""
    (first_folder, first), *others = designs.items()
    variants = dict(first.variants)
    for folder, design in others:
        differences = unequal(first.shared, design.shared)
        if first.seeds != design.seeds:
            differences.append(f"seeds: {_listed(first.seeds)} and {_listed(design.seeds)}")
        if differences:
            raise UserError(f"{first_folder} and {folder} are not equal ({'; '.join(differences)}); give them in tables of their own")
        if twice := variants.keys() & design.variants.keys():
            raise UserError(f"{min(twice)} is both in {folder} and in another folder; give each variant once")
        variants |= design.variants
    refuse_twins(variants)
    return replace(first, variants=variants)


def save(design: Design, folder: Path) -> None:
    """Into `folder`, which is there. Raises UserError where it cannot be written."""
    values = asdict(design)
    for variant in values["variants"].values():
        variant["grid"]["rates"] = list(variant["grid"]["rates"])
    values["seeds"] = list(design.seeds)
    temporary = folder / f"{FILE}.tmp"
    try:
        durable.write(temporary, yaml.safe_dump(values, sort_keys=False))
        temporary.replace(folder / FILE)
        durable.flush(folder)
    except OSError as error:
        raise UserError(f"the comparison's folder {folder} cannot be written ({error.strerror}); give another run.dir") from error


def load(folder: Path) -> Design:
    """Raises UserError where `folder` holds no comparison."""
    try:
        values = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        variants = {
            name: Variant(found["name"], found["settings"], Grid(tuple(found["grid"]["rates"]), found["grid"]["most"]))
            for name, found in values["variants"].items()
        }
        return Design(values["shared"], variants, tuple(values["seeds"]))
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no comparison (no {FILE}); give the folder that python -m pretrain.compare made") from error
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / FILE} cannot be read; delete it, and the comparison's whole command finds its runs again") from error


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
