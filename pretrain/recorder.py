"""Everything that a run says while it goes: metrics.jsonl, the tracker and the terminal. On ranks other than 0 it says nothing."""

import logging
import sys
from typing import Any

from pretrain import distributed
from pretrain.config.schema import Config
from pretrain.metrics import MetricsWriter, last, read_metrics
from pretrain.plan.of_run import Plan, render
from pretrain.provenance import provenance
from pretrain.run_folder import RunFolder
from pretrain.tracker import make_tracker

logger = logging.getLogger("pretrain")

_ON_THE_LINE = {"loss": ".4f", "lr": ".2e", "mlm_accuracy": ".4f", "mask_token_loss": ".4f", "perplexity": ".2f", "nsp_accuracy": ".4f"}
"""Metrics shown on the terminal, and how."""


class Recorder:
    """One for the life of a process; `record` takes any line of metrics.jsonl."""

    def __init__(self, config: Config, folder: RunFolder, plan: Plan) -> None:
        self._active = distributed.is_main()
        self._num_steps = config.train.num_steps
        self._bar: Any = None
        self.earlier_seconds = 0.0
        self.made_with: dict[str, Any] = {}
        if not self._active:
            return
        self.earlier_seconds = (last(read_metrics(folder.metrics), "train") or {}).get("wall_seconds", 0.0)
        self._writer = MetricsWriter(folder.metrics)
        self.made_with = provenance()
        self._tracker = make_tracker(config, folder, {"plan": plan.as_dict(), **self.made_with})

    def show_plan(self, plan: Plan) -> None:
        self._say(render(plan))

    def show_progress(self, step: int) -> None:
        """Move the bar on a terminal; elsewhere `record` prints lines."""
        if not self._active or not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._num_steps, initial=step, unit="step", dynamic_ncols=True)
        self._bar.update(step - self._bar.n)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """One line for the file, the tracker and the terminal."""
        if not self._active:
            return
        line = self._writer.write(kind, step=step, **values)
        self._tracker.check()
        shown = ", ".join(f"{name} {line[name]:{form}}" for name, form in _ON_THE_LINE.items() if line.get(name) is not None)
        if kind == "train" and self._bar is not None:
            self._bar.set_postfix_str(shown)
        elif kind == "train":
            self._say(f"step {step}/{self._num_steps}: {shown}, {line['tokens_per_second']:,.0f} tokens/s")
        elif kind == "eval":
            self._say(f"step {step}/{self._num_steps}: validation {shown}")

    def say(self, text: str) -> None:
        """A line for the user alone."""
        self._say(text)

    def close(self) -> bool:
        """Bring everything home; whether every line is in the file, which is said where it is not."""
        if not self._active:
            return True
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._tracker.finish()
        try:
            self._writer.close()
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return False
        return True

    def _say(self, text: str) -> None:
        if self._active:
            logger.info(text)
        if self._active and self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self._active:
            print(text, file=sys.stderr, flush=True)
