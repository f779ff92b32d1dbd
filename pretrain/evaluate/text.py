"""Which text a model is evaluated on: all of what the settings name (of a prepared folder its validation split) or, without any, the
validation text of the model's own run."""

from collections.abc import Iterator, Sequence

from pretrain.config.compose import compose
from pretrain.config.consistency import check_sources
from pretrain.config.schema import Config, MlmConfig, MlmNspConfig, PreparedDataConfig
from pretrain.data.corpus import open_sources
from pretrain.data.mixture import mixture_of
from pretrain.data.prepare import prepare
from pretrain.data.prepared import Prepared, open_prepared
from pretrain.data.tokenizer_files import vocabulary_hash
from pretrain.errors import UserError
from pretrain.evaluate.subject import Run, Subject
from pretrain.loading import Loaded

_KIND_BY_KEY = {"paths": "text", "name": "hub", "mixture": "mixture", "path": "prepared"}
"""Where data=... is left out, the setting that names the text tells which it is."""

_WITHOUT_EFFECT = ("data.validation_fraction", "data.deduplicate")


def check_overrides(overrides: Sequence[str], of_run: bool) -> None:
    """Raises UserError for settings that an evaluation does not have, and where no text is named by anything."""
    for override in overrides:
        key = _key(override)
        if key in _WITHOUT_EFFECT:
            raise UserError(f"{key} has no effect here: nothing of the text is set apart or left out; leave the setting out")
        if key not in ("data", "objective") and not key.startswith(("data.", "objective.")):
            raise UserError(f"{key} has no effect on an evaluation; give settings of data and, for a BERT, of objective")
    if names_text(overrides):
        return
    if not of_run:
        raise UserError("there is no text to evaluate on; give data.paths=[FILE,FOLDER,...] or data=...")
    if overrides:
        raise UserError(
            f"{overrides[0]}: without a text the model is evaluated on its run's own validation text as the run does; "
            "name one too (data.paths=[...] or data=...), or leave it out"
        )


def names_text(overrides: Sequence[str]) -> bool:
    """Whether there is a text among the settings."""
    return bool(_kind_of(overrides)) or any(_key(override) == "data" for override in overrides)


def settings(subject: Subject, overrides: Sequence[str], config_dir: str | None) -> Config:
    """`overrides` as a configuration; what they leave open of length and masks is the run's, else the published BERT's."""
    if subject.loaded.kind == "causal":
        for key in map(_key, overrides):
            if key == "data.max_seq_length" or key.startswith("objective"):
                raise UserError(f"{key} is for a BERT, but {subject.name} continues text; give --max-length and --stride instead")
    run = subject.run.config if subject.run else None
    positions = subject.loaded.positions
    length = min(128, positions) if run is None else run.data.max_seq_length
    given = [f"data.max_seq_length={length}", f"model.max_positions={positions}"]
    if subject.loaded.kind == "masked":
        given += ["model=bert_mini", *_objective(subject, overrides)]
    else:
        given += ["model=gpt2_small", "objective=clm"]
    if not any(_key(override) == "data" for override in overrides):
        given.append(f"data={_kind_of(overrides)}")
    config = compose([*given, *overrides], config_dir)
    check_sources(config)
    return config


def documents(config: Config, loaded: Loaded) -> list[str]:
    """Every document of the text; of a prepared folder those of its validation split, put together from their tokens."""
    data = config.data
    if isinstance(data, PreparedDataConfig):
        return list(_documents_of(prepared_for(config, loaded), loaded))
    found = [
        document
        for source in open_sources(data, progress=True)
        for text in source.texts()
        for document in text.documents()
        if len(document) >= data.min_document_characters
    ]
    if not found:
        raise UserError("the text that is given holds no document; give files with text in them")
    return found


def own_validation(run: Run, loaded: Loaded) -> tuple[Prepared, list[str]]:
    """The corpus of a run, prepared again where it is no longer in the cache, and the documents of its validation split (of a GPT-2).

    Raises UserError where the text is not what it was when the run began.
    """
    prepared = open_prepared(prepare(run.config))
    fingerprint = prepared.fingerprint + mixture_of(prepared, run.config.data).signature
    if run.data_fingerprint not in (None, fingerprint):
        raise UserError("the text that the run was trained on has changed since; name a text: data.paths=[...] or data=...")
    _refuse_another_vocabulary(prepared, loaded)
    return prepared, list(_documents_of(prepared, loaded)) if loaded.kind == "causal" else []


def prepared_for(config: Config, loaded: Loaded) -> Prepared:
    """The folder of data=prepared; raises UserError where it is not whole, or was prepared with another vocabulary than the model's."""
    prepared = open_prepared(prepare(config))
    _refuse_another_vocabulary(prepared, loaded)
    return prepared


def _documents_of(prepared: Prepared, loaded: Loaded) -> Iterator[str]:
    """Of a GPT-2's corpus: a document is one run of tokens with <|endoftext|> behind it, and byte-level BPE loses nothing."""
    for source in prepared.sources:
        starts = source.valid.sentence_starts[source.valid.document_starts]
        for start, stop in zip(starts[:-1], starts[1:]):
            yield loaded.tokenizer.decode(source.valid.tokens[start : stop - 1].tolist(), clean_up_tokenization_spaces=False)


def _refuse_another_vocabulary(prepared: Prepared, loaded: Loaded) -> None:
    if prepared.manifest["vocabulary_hash"] != vocabulary_hash(loaded.tokenizer.backend_tokenizer):
        raise UserError(f"{prepared.folder} was prepared with another vocabulary than the model's; give the text itself: data.paths=[...]")


def _objective(subject: Subject, overrides: Sequence[str]) -> list[str]:
    """The run's, as far as another one that is chosen has the same settings; else what the model has heads for."""
    run = subject.run.config.objective if subject.run else None
    chosen = next((override.partition("=")[2] for override in overrides if _key(override) == "objective"), None)
    if chosen not in (None, "mlm", "mlm_nsp"):
        return []
    if not isinstance(run, MlmConfig):
        return ["objective=mlm_nsp" if hasattr(subject.loaded.model.cls, "seq_relationship") else "objective=mlm"]
    most = "null" if run.max_predictions is None else run.max_predictions
    given = [f"objective={run.kind}", f"objective.mask_probability={run.mask_probability}", f"objective.max_predictions={most}"]
    if isinstance(run, MlmNspConfig) and chosen != "mlm":
        given.append(f"objective.short_sequence_probability={run.short_sequence_probability}")
    return given


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _kind_of(overrides: Sequence[str]) -> str:
    """The kind of data that the first setting to name a text belongs to; empty where none does."""
    keys = [_key(override).split(".")[1] for override in overrides if _key(override).startswith("data.")]
    return next((_KIND_BY_KEY[key] for key in keys if key in _KIND_BY_KEY), "")
