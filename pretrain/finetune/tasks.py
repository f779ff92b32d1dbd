"""The tasks of GLUE (Wang et al., 2019): where their files hold what, their labels and their metrics.

SQuAD is in `squad_data.py` and `question_answering.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GlueTask:
    """One task of GLUE, in its usual files and on the hub."""

    name: str
    folder: str
    """Its folder in the usual download."""
    texts: tuple[str | int, ...]
    """Columns of the sentence or of the two sentences: by their names in the first line, by number (from 0) where there is no such line."""
    label: str | int
    """The label's column, likewise."""
    labels: tuple[str, ...]
    """What stands in the files, in the order of the classes; none: a score, predicted by regression."""
    metrics: tuple[str, ...]
    """Names in `metrics.GLUE`, the main one first."""
    hub_texts: tuple[str, ...]
    """The columns in nyu-mll/glue, where `label` holds the class or the score."""
    splits: tuple[str, ...] = ("",)
    """What stands behind the name of each validation set."""

    @property
    def has_header(self) -> bool:
        return isinstance(self.label, str)

    @property
    def train_file(self) -> str:
        return "train.tsv"

    @property
    def eval_files(self) -> dict[str, str]:
        """Split -> file."""
        return {split: f"dev{split}.tsv" for split in self.splits}


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")

GLUE_TASKS = {
    task.name: task
    for task in (
        GlueTask("sst2", "SST-2", ("sentence",), "label", _BINARY, ("accuracy",), ("sentence",)),
        GlueTask("mrpc", "MRPC", ("#1 String", "#2 String"), "Quality", _BINARY, ("f1", "accuracy"), _PAIR),
        GlueTask("rte", "RTE", _PAIR, "label", _ENTAILMENT, ("accuracy",), _PAIR),
        GlueTask("cola", "CoLA", (3,), 1, _BINARY, ("matthews",), ("sentence",)),
        GlueTask("stsb", "STS-B", _PAIR, "score", (), ("pearson", "spearman"), _PAIR),
        GlueTask("qnli", "QNLI", ("question", "sentence"), "label", _ENTAILMENT, ("accuracy",), ("question", "sentence")),
        GlueTask(
            "mnli",
            "MNLI",
            _PAIR,
            "gold_label",
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            ("premise", "hypothesis"),
            ("_matched", "_mismatched"),
        ),
    )
}
