"""The last words of a run."""

import json
from pathlib import Path

import pytest

from pretrain.run_folder import RunFolder
from pretrain.summary import summarise


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (2.5, "loss on [MASK] tokens 2.5000 nats; unigram frequencies give 4.0000: 1.5000 better"),
        (4.25, "4.0000: 0.2500 worse"),
        (None, None),
    ],
)
def test_what_was_learnt_is_said_beside_the_frequencies(tmp_path: Path, trained: float | None, words: str | None) -> None:
    folder = RunFolder(tmp_path)
    lines = [
        {"kind": "start", "step": 0, "unigram_loss": 4.0},
        {"kind": "eval", "step": 3, "loss": 5.0, "mask_token_loss": trained},
        {"kind": "end", "step": 3, "samples": 12, "wall_seconds": 61.0, "skipped_steps": 0},
    ]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = summarise(folder)
    assert "3 steps, 12 samples, 1 min 1 s" in text and str(folder.metrics) in text
    assert words in text if words else "unigram" not in text  # no [MASK] in so small a validation set
