"""What pretraining brings: each pretrained model against its control, the same fine-tuning from random weights."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pretrain.finetune.recorded import Content, differing, is_control, label_of, metrics_of, num_diverged, num_undefined, scores_of, task_of
from pretrain.report.significance import difference

REMARK = (
    "A gain is that of the best rate over the best control, both chosen by their means here, which the intervals do not account for, among "
    "those with as many seeds as both sides have. A control has random weights and agrees in everything else but the optimizer and its "
    "settings."
)


def gains(contents: Sequence[Content]) -> list[str]:
    """One line for each model and recipe (all settings but the learning rate), in the order of the results."""
    lines = []
    for task in dict.fromkeys(map(task_of, contents)):
        some = [content for content in contents if task_of(content) == task]
        lines += _gains_of_task(some)
    return lines


def _gains_of_task(contents: Sequence[Content]) -> list[str]:
    """Nothing is said of a model without a control unless there are controls of something else."""
    names, metric = differing(contents), metrics_of(contents)[0]
    controls = [content for content in contents if is_control(content)]
    lines = []
    for group in _groups(content for content in contents if not is_control(content)):
        kin = [control for control in controls if _agree(group[0], control)]
        seeds = min(_most_seeds(group, metric), _most_seeds(kin, metric))
        best, best_control = _best(group, metric, seeds), _best(kin, metric, seeds)
        if kin and best and best_control:
            found = _gain(best, best_control, metric, lambda content: label_of(content, names))
            tried = _num_tried(group), _num_tried(kin)
            found += f"; rates tried: {tried[0]}, of the control {tried[1]}" if tried[0] != tried[1] else ""
            lines.append(found + _passed_over(group, best, metric, "") + _passed_over(kin, best_control, metric, "of the control "))
        elif kin:
            whose, lacking = ("the control", kin) if best else ("it", group)
            lost = ", ".join(dict.fromkeys(_lost(content, metric) for content in lacking))
            lines.append(f"{label_of(best or group[0], names)}: no gain is told, as no seed of {whose} has a score ({lost})")
        elif controls:
            lines.append(f"{label_of(best or group[0], names)}: no control here")
    return lines


def _gain(content: Content, control: Content, metric: str, label: Callable[[Content], str]) -> str:
    first, second = scores_of(content, metric), scores_of(control, metric)
    found = difference([100 * score for score in first], [100 * score for score in second])
    said = f"{label(content)}: {found.mean:+.2f} {metric} over random weights ({label(control)})"
    if found.low is None or found.high is None:
        said += "; with a single seed there is no interval"
    else:
        said += f", 95 % interval {found.low:+.2f} to {found.high:+.2f} (Welch, {len(first)} and {len(second)} seeds)"
    for whose, each in (("", content), ("the control ", control)):
        if lost := _lost(each, metric):
            said += f"; {whose}without {lost} of {len(each['seeds'])} seeds"
    return said


def _groups(contents: Iterable[Content]) -> list[list[Content]]:
    """Those that differ in the learning rate alone."""
    groups: dict[tuple[Any, ...], list[Content]] = {}
    for content in contents:
        groups.setdefault(_settings(content, lambda name: name != "optimizer.lr"), []).append(content)
    return list(groups.values())


def _agree(content: Content, control: Content) -> bool:
    """Whether the two differ by nothing but the weights at the beginning and the optimizer with its settings."""
    first, second = (
        _settings(each, lambda name: name not in ("weights", "finetune.from_scratch") and not name.startswith("optimizer."))
        for each in (content, control)
    )
    return first == second


def _best(contents: Sequence[Content], metric: str, seeds: int) -> Content | None:
    """By the mean, among those in which so many seeds have a score: of many rates with one seed the best is so by luck too."""
    settled = [content for content in contents if len(scores_of(content, metric)) >= max(seeds, 1)]
    return max(settled, key=lambda content: _mean(content, metric), default=None)


def _most_seeds(contents: Sequence[Content], metric: str) -> int:
    """With a score, in one of these."""
    return max((len(scores_of(content, metric)) for content in contents), default=0)


def _passed_over(contents: Sequence[Content], best: Content, metric: str, whose: str) -> str:
    """What has a better mean than the best, but of too few seeds."""
    better = [content for content in contents if scores_of(content, metric) and _mean(content, metric) > _mean(best, metric)]
    rates = ", ".join(f"{content['made_from']['optimizer.name']} lr {content['made_from']['optimizer.lr']:g}" for content in better)
    return f"; {whose}passed over for too few seeds, though of a better mean: {rates}" if better else ""


def _mean(content: Content, metric: str) -> float:
    return statistics.fmean(scores_of(content, metric))


def _num_tried(contents: Sequence[Content]) -> int:
    """Optimizers and rates."""
    return len({_settings(content, lambda name: name.startswith("optimizer.")) for content in contents})


def _settings(content: Content, kept: Callable[[str], bool]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, value) for name, value in content["made_from"].items() if kept(name)))


def _lost(content: Content, metric: str) -> str:
    """The seeds without a score, and why; empty where there are none."""
    counts = {"diverged": num_diverged(content), "undefined": num_undefined(content, metric)}
    return " and ".join(f"{count} {why}" for why, count in counts.items() if count)
