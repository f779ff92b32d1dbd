"""`python -m pretrain.workspace`: the dashboard that compares a project's runs in Weights & Biases, made from code.

`SECTIONS` says what is on it, in the names that `wandb_follower.py` gives to the metrics; the package wandb-workspaces (the extra
`dashboards`) makes W&B's description of a saved view from it.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pretrain import wandb_follower
from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

_DESCRIPTION = """\
Make the dashboard that compares a project's runs in Weights & Biases: loss over steps, tokens and time, final scores against the learning
rate, seeds as bands, the optimizer's statistics, memory and speed. It becomes a saved view of the project's workspace; each call makes one.

examples:
  python -m pretrain.workspace --entity my-team --project came
  python -m pretrain.workspace --dry-run                   prints what would be saved, and contacts nobody
"""
_NAME = "Optimizers compared"
_RUNS_PER_PANEL = 50


@dataclass(frozen=True)
class Over:
    """Metrics over one of the axes, a line per run; or per group of seeds, with a band around their mean."""

    title: str
    metrics: tuple[str, ...]
    axis: str = "step"
    log_y: bool = False
    seeds: bool = False


@dataclass(frozen=True)
class Against:
    """The last value of a metric against a setting, a point per run."""

    title: str
    metric: str
    setting: str


@dataclass(frozen=True)
class Bars:
    """The last value of metrics, a bar per run."""

    title: str
    metrics: tuple[str, ...]


Panel = Over | Against | Bars

SECTIONS: dict[str, tuple[Panel, ...]] = {
    "Loss": (
        Over("Training loss, by step", ("train/loss",)),
        Over("Training loss, by tokens", ("train/loss",), "tokens"),
        Over("Training loss, by time (s)", ("train/loss",), "wall_seconds"),
        Over("Validation loss, by step", ("eval/loss",)),
        Over("Validation loss, by tokens", ("eval/loss",), "tokens"),
        Over("Validation loss, by time (s)", ("eval/loss",), "wall_seconds"),
        Over("Accuracy at masked positions", ("eval/mlm_accuracy",)),
        Over("Loss on [MASK] tokens", ("eval/mask_token_loss",)),
        Over("Perplexity", ("eval/perplexity",), log_y=True),
    ),
    "Final score against the learning rate": (
        Against("Validation loss", "eval/loss", "optimizer.lr"),
        Against("Accuracy at masked positions", "eval/mlm_accuracy", "optimizer.lr"),
        Against("Perplexity", "eval/perplexity", "optimizer.lr"),
    ),
    "Seeds": (
        Over("Validation loss, mean and range over seeds", ("eval/loss",), seeds=True),
        Over("Validation loss by tokens, mean and range over seeds", ("eval/loss",), "tokens", seeds=True),
        Over("Training loss, mean and range over seeds", ("train/loss",), seeds=True),
    ),
    "Optimizer": (
        Over("RMS of the update", ("train/update_rms",), log_y=True),
        Over("Gradient norm", ("train/grad_norm",), log_y=True),
        Over("Learning rate", ("train/lr",)),
        Over("Share of parameters that CAME clipped", ("train/clip_share",)),
        Over("CAME's confidence, mean", ("train/confidence_mean",)),
        Over("CAME's confidence, standard deviation", ("train/confidence_std",)),
        Over("Skipped steps", ("train/skipped_steps",)),
    ),
    "Memory": (
        Bars("Optimizer state (bytes)", ("train/memory_optimizer_bytes",)),
        Bars("Peak (bytes)", ("train/memory_peak_bytes",)),
        Bars("Parameters and gradients (bytes)", ("train/memory_params_bytes", "train/memory_grads_bytes")),
    ),
    "Speed": (
        Over("Tokens per second", ("train/tokens_per_second",)),
        Over("Model FLOP utilisation", ("train/mfu",)),
        Over("Step (s)", ("train/step_seconds",)),
        Bars(
            "A step by part (s)",
            tuple(f"train/{part}_seconds" for part in ("forward", "backward", "communication", "optimizer", "data")),
        ),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.output is not None and not options.dry_run:
        raise UserError("--output takes what --dry-run prints; give both, or leave --output out")
    os.environ.setdefault("WANDB_SILENT", "true")
    if not options.dry_run:
        entity = _entity(options.entity)
        print(f"saved: {_at_wandb(lambda: _workspace(entity, options.project).save().url)}")
        return 0
    text = json.dumps(described(options.entity or "", options.project), indent=2)
    if options.output is None:
        print(text)
        return 0
    try:
        user_path(options.output, "--output ").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{options.output} cannot be written ({error.strerror}); give another --output") from error
    return 0


def _parser() -> Parser:
    parser = Parser("python -m pretrain.workspace", description=_DESCRIPTION)
    parser.add_argument("--entity", help="a user or team of W&B (your own default)")
    parser.add_argument("--project", default="pretrain", help="the project whose runs are compared, the runs' tracker.project (pretrain)")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON, and save nothing")
    parser.add_argument("--output", metavar="FILE", help="with --dry-run: write it there")
    return parser


def described(entity: str, project: str) -> dict[str, Any]:
    """The view as it would be sent to W&B; contacts nobody. Raises UserError where wandb-workspaces is missing."""
    view = _workspace(entity, project)._to_model()
    spec = view.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"entity": entity, "project": project, "name": view.display_name, "spec": spec}


def _workspace(entity: str, project: str) -> Any:
    """The `wandb_workspaces.workspaces.Workspace`."""
    try:
        from wandb_workspaces import workspaces
    except ImportError as error:
        raise UserError(f"this needs wandb-workspaces ({error}); install the extra: pip install 'came-pretrain[dashboards]'") from error
    sections = [
        workspaces.Section(name=name, panels=[_panel(panel) for panel in panels], is_open=True) for name, panels in SECTIONS.items()
    ]
    settings = workspaces.WorkspaceSettings(x_axis="step", max_runs=_RUNS_PER_PANEL)
    return workspaces.Workspace(entity=entity, project=project, name=_NAME, sections=sections, settings=settings)


def _panel(panel: Panel) -> Any:
    from wandb_workspaces.reports import v2

    if isinstance(panel, Against):
        metric = v2.SummaryMetric(panel.metric)
        return v2.ScatterPlot(title=panel.title, x=v2.Config(panel.setting), y=metric, log_x=True)
    if isinstance(panel, Bars):
        return v2.BarPlot(title=panel.title, metrics=list(panel.metrics))
    grouped = (
        {"groupby": v2.Config(wandb_follower.SEED_GROUP), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"} if panel.seeds else {}
    )
    return v2.LinePlot(
        title=panel.title,
        x=panel.axis,
        y=list(panel.metrics),
        log_y=panel.log_y or None,
        max_runs_to_show=_RUNS_PER_PANEL,
        **grouped,
    )


def _entity(given: str | None) -> str:
    """Whose project it is. Raises UserError where nobody is logged in."""
    import wandb

    if not _at_wandb(wandb_follower.has_key):
        raise UserError("W&B has no API key; run `wandb login`, set WANDB_API_KEY, or give --dry-run")
    entity = given or _at_wandb(lambda: wandb.Api().default_entity)
    if not entity:
        raise UserError("W&B knows no default entity of yours; give --entity")
    return entity


def _at_wandb(ask: Callable[[], Any]) -> Any:
    """What W&B answers; raises UserError where it does not."""
    try:
        return ask()
    except UserError:
        raise
    except Exception as error:
        mend = "see to the network, the key, --entity and --project"
        raise UserError(f"W&B does not take it ({wandb_follower.one_line(error)}); {mend}") from error


if __name__ == "__main__":
    sys.exit(main())
