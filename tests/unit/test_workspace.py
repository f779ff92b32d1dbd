"""`python -m pretrain.workspace`: the panels are there, over the names that a run really logs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain import wandb_follower, workspace
from tests.wandb_server import Server

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # in wandb-workspaces


@pytest.fixture(scope="module")
def panels() -> dict[str, list[dict[str, Any]]]:
    """The view's panels as W&B would get them, by section."""
    view = workspace.described("me", "p")
    assert (view["entity"], view["project"], view["name"]) == ("me", "p", "Optimizers compared")
    return {section["name"]: section["panels"] for section in view["spec"]["section"]["panelBankConfig"]["sections"]}


def drawn(panels: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What line plots draw: metric and x axis."""
    plots = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    return [(metric, plot["xAxis"]) for plot in plots for metric in plot["metrics"]]


def test_loss_is_drawn_over_steps_tokens_and_time(panels) -> None:
    for metric in ("train/loss", "eval/loss"):
        for axis in ("step", "tokens", "wall_seconds"):
            assert (metric, axis) in drawn(panels["Loss"])
    axes = {axis for section in panels.values() for _, axis in drawn(section)}
    assert axes <= set(wandb_follower.AXES)


def test_final_scores_stand_against_the_learning_rate(panels) -> None:
    found = [(panel["viewType"], panel["config"]) for panel in panels["Final score against the learning rate"]]
    assert {kind for kind, _ in found} == {"Scatter Plot"}
    assert {config["xAxis"] for _, config in found} == {"config:optimizer.value.lr"} and all(config["xAxisLogScale"] for _, config in found)
    assert {config["yAxis"] for _, config in found} == {"summary:eval/loss", "summary:eval/mlm_accuracy", "summary:eval/perplexity"}


def test_seeds_are_bands(panels) -> None:
    assert ("eval/loss", "step") in drawn(panels["Seeds"])
    for panel in panels["Seeds"]:
        config = panel["config"]
        assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == ("seed_group.value", "mean", "minmax") and config[
            "aggregate"
        ]


def test_the_update_and_the_optimizer_s_memory_are_there(panels) -> None:
    assert ("train/update_rms", "step") in drawn(panels["Optimizer"])
    bars = [metric for panel in panels["Memory"] if panel["viewType"] == "Bar Chart" for metric in panel["config"]["metrics"]]
    assert "train/memory_optimizer_bytes" in bars


def test_a_dry_run_prints_or_writes_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert workspace.main(["--dry-run", "--project", "q", "--output", str(tmp_path / "view.json")]) == 0
    assert capfd.readouterr() == ("", "")
    written = json.loads((tmp_path / "view.json").read_text())
    assert written["project"] == "q" and len(written["spec"]["section"]["panelBankConfig"]["sections"]) == len(workspace.SECTIONS)
    assert workspace.main(["--dry-run", "--output", str(tmp_path / "nowhere" / "view.json")]) == 2
    assert re.fullmatch(r"error: .*view.json cannot be written \(.*\); give another --output\n", capfd.readouterr().err)
    assert workspace.main(["--output", str(tmp_path / "other.json")]) == 2
    assert capfd.readouterr().err == "error: --output takes what --dry-run prints; give both, or leave --output out\n"


def test_without_the_package_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert workspace.main(["--dry-run"]) == 2
    output, errors = capfd.readouterr()
    assert output == "" and re.fullmatch(r"error: .*install the extra: pip install 'came-pretrain\[dashboards\]'\n", errors)


def test_saving_needs_a_login_that_w_and_b_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert workspace.main(["--entity", "me"]) == 2
    assert capfd.readouterr() == ("", "error: W&B has no API key; run `wandb login`, set WANDB_API_KEY, or give --dry-run\n")
    with Server(refusing=True).running() as server:
        assert save_at(server, monkeypatch) == 2
    output, errors = capfd.readouterr()
    assert output == "" and re.fullmatch(r"error: W&B does not take it \(.+\); see to the network, the key, .*\n", errors), errors
    assert server.authorizations


def test_what_is_saved_is_what_a_dry_run_shows(panels, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with Server().running() as server:
        assert save_at(server, monkeypatch) == 0
    output, _ = capfd.readouterr()
    assert re.fullmatch(r"saved: \S+/me/pretrain\?nw=\S+\n", output), output
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "pretrain", "Optimizers compared")
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    assert {section["name"]: drawn(section["panels"]) for section in sections} == {name: drawn(found) for name, found in panels.items()}


def save_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 5)
    import wandb

    wandb.teardown()  # it keeps the environment that it has once seen
    code = workspace.main(["--entity", "me"])
    wandb.teardown()
    return code
