"""The same command twice, a moment apart: what the first has done in the meantime stands."""

import json
from pathlib import Path

from tests.faults.fault_points import wrap
from tests.forked_runs import SMALL, ForkedRuns


def begun_by_another_process_meanwhile() -> None:
    """It holds the lock until just before this run asks for it."""
    from pretrain.train import Trainer

    def begin(trainer: Trainer) -> None:
        trainer.folder.claim(trainer.config)
        lines = [{"kind": "start", "step": 0, "data_fingerprint": trainer.data_fingerprint}, {"kind": "train", "step": 1}]
        trainer.folder.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    wrap(Trainer, "_claim_folder", before=begin)


def test_a_run_that_moved_on_before_its_lock_was_had_is_left_alone(runs: ForkedRuns, folder: Path) -> None:
    ended = runs.run(*SMALL, "run.name=it", fault=begun_by_another_process_meanwhile)
    assert ended.codes == [2, 2], ended.said
    (error,) = (line for line in ended.said.splitlines() if line.startswith("error: "))
    assert error.endswith("it moved on meanwhile, by another process; give the same command again")
    assert [json.loads(line)["kind"] for line in (folder / "runs" / "it" / "metrics.jsonl").open()] == ["start", "train"]
