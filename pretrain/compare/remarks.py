"""What is said of a comparison beside its table: what is equal and what is not, in the head; how to read the rows, in the notes."""

from collections.abc import Mapping, Sequence
from typing import Any

from pretrain.compare.design import Design, Variant
from pretrain.compare.outcomes import Outcome, told_of_the_machines
from pretrain.compare.rows import TEST, Row
from pretrain.compare.search import FACTOR, Trial
from pretrain.config.registry import SCHEMAS
from pretrain.report.comparison import PROVENANCE, by_value, shown, unequal


def head(design: Design, outcomes: Mapping[Trial, Outcome], rows: Sequence[Row]) -> list[str]:
    """What all runs share, and each thing that they do not."""
    get = design.shared.get
    steps, batch, length = (get(name) for name in ("train.num_steps", "train.global_batch_size", "data.max_seq_length"))
    schedule = f"schedule {get('schedule.kind')}, warm-up {get('schedule.warmup_ratio'):g} of the steps"
    lines = [
        f"model {get('model.name')}, objective {get('objective.kind')}: {steps:,} steps of {batch:,} sequences of {length} tokens, "
        f"{steps * batch * length:,} tokens in all; {schedule}; precision {get('train.precision')}; "
        f"seeds {', '.join(map(str, design.seeds))}",
        "equal in all runs: the tokens, their order and masks, the model and (for each seed) its initial weights, the schedule's shape, "
        "what is evaluated and how often",
    ]
    own = dict.fromkeys(key for variant in design.variants.values() for key in variant.settings)
    for key in [*(key for key in own if not key.startswith("optimizer.")), "optimizer.weight_decay"]:
        lines += unequal(key, by_value({name: shown(variant.settings.get(key)) for name, variant in design.variants.items()}))
    lines += unequal("the number of rates tried", by_value({row.variant: str(len(row.found.scores)) for row in rows if row.found.scores}))
    for outcome in outcomes.values():
        if outcome.run.skipped_steps and outcome.loss is not None:
            lines.append(
                f"NOT equal: {outcome.trial.name} skipped {outcome.run.skipped_steps} batches, and trained on the next ones instead"
            )
    masks = "dropout's masks, " if get("model.dropout") else ""
    for name, values in told_of_the_machines(outcomes.values()).items():
        told = "" if name.startswith(PROVENANCE) else f"; that changes {masks}rounding, time and memory alone"
        lines += [line + told for line in unequal(name, values)]
    return lines


def notes(design: Design, rows: Sequence[Row], baseline: str) -> list[str]:
    """How the rows were judged, and what has to be known of some of them."""
    lines = [
        f"against {baseline}: {TEST}; in brackets the 95 % interval of each difference by itself; the learning rate was chosen by the "
        "first seed, which is among the seeds of the mean"
    ]
    if target := next((row.target for row in rows), None):
        lines.append(
            f"steps and tokens: until an evaluation is at {baseline}'s mean final loss of {target:.4f} or below, where all seeds are"
        )
    settings = {row.variant: design.variants[row.variant].settings for row in rows}
    decays = {row.variant: row.found.best * settings[row.variant]["optimizer.weight_decay"] for row in rows if row.found.best}
    if any(decays.values()):
        told = ", ".join(f"{name} {decay:.2g}{_times(settings[name])}" for name, decay in decays.items())
        lines.append(f"weight decay of a step at the peak (lr x weight_decay): {told}")
    for name, variant in design.variants.items():
        if own := not_default(variant):
            lines.append(f"{name}: " + ", ".join(f"{key.removeprefix('optimizer.')} {shown(value)}" for key, value in own.items()))
    for row in rows:
        if row.found.best is None or row.found.wanted:
            continue
        if row.found.at_edge:
            tried = len(row.found.scores)
            lines.append(
                f"{row.variant}: the best rate, {row.found.best:g}, lies at the edge of the {tried} tried; a better may lie beyond"
            )
        elif row.found.gap > 1.01 * FACTOR:
            lines.append(f"{row.variant}: the rates next to the best, {row.found.best:g}, are up to a factor of {row.found.gap:.3g} away")
    unfinished = [row.variant for row in rows if not row.has_ended]
    if unfinished:
        lines.append(f"NOT finished: {', '.join(unfinished)}; the same command goes on")
    if unfinished and any(row.p is not None for row in rows):
        lines.append("NOT final: p, which counts what is not finished as tests whose p are the largest, and can only fall when they end")
    return lines


def _times(settings: Mapping[str, Any]) -> str:
    """What the optimizer multiplies a matrix's step by, the decay that is part of it too."""
    if settings.get("optimizer.scale_parameter"):
        return " times the parameter's RMS"
    if settings["optimizer.name"] == "lamb" or settings.get("optimizer.trust_ratio"):
        return " times the trust ratio"
    return ""


def not_default(variant: Variant) -> dict[str, Any]:
    """The optimizer's settings that are not its schema's defaults, but for its name."""
    defaults = SCHEMAS["optimizer"][variant.settings["optimizer.name"]]()
    own = {key: value for key, value in variant.settings.items() if key.startswith("optimizer.") and key != "optimizer.name"}
    return {key: value for key, value in own.items() if getattr(defaults, key.removeprefix("optimizer."), None) != value}
