"""What is read: the corpus and its tokenizer."""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain.config.schema.checks import require, require_choice, require_positive
from pretrain.errors import UserError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass
class DataConfig:
    """What is read and how it is cut."""

    kind: str = MISSING
    max_seq_length: int = 128
    """Tokens per sequence, special tokens included."""
    cache_dir: str = "~/.cache/pretrain"
    """Prepared token files, keyed by content and settings; shared by all runs."""
    validation_fraction: float = 0.02
    """Share of the documents, chosen by their hash, that is held out when no validation text is given."""
    min_document_characters: int = 1
    """Shorter documents are left out, and counted."""
    deduplicate: bool = False
    """Keep the first of documents whose text is the same, and count the others."""

    def __post_init__(self) -> None:
        require(self.max_seq_length >= 8, "data.max_seq_length", self.max_seq_length, "8 or more")
        require(0 < self.validation_fraction < 1, "data.validation_fraction", self.validation_fraction, "a number between 0 and 1")
        require_positive("data", self, "min_document_characters")


@dataclass
class StdlibDataConfig(DataConfig):
    """The embedded corpus: the English text that every Python carries."""

    kind: str = "stdlib"


@dataclass
class FilesConfig:
    """Which files are read."""

    paths: list[str] = field(default_factory=list)
    """Files, folders or glob patterns."""
    valid_paths: list[str] = field(default_factory=list)
    """Validation text; empty: cut from `paths` by document hash."""
    text_field: str = "text"
    """Where .jsonl and .parquet records hold their text."""
    documents: str = "blank_line"
    """What parts the documents of plain text: blank_line, or file: each file is one as it stands, with its blank lines (above 4 Mi
    characters it is cut)."""

    def check_files(self, prefix: str) -> None:
        """Raise a `UserError` for what is no name (OmegaConf lets a list be an element), for an empty one, which would be the folder that
        the command is given in, and for another way to part documents."""
        require_choice(f"{prefix}.documents", self.documents, ("blank_line", "file"))
        for name in ("paths", "valid_paths"):
            given = getattr(self, name)
            named = all(isinstance(path, str) and path for path in given)
            require(named, f"{prefix}.{name}", given, "names of files or folders, none of them empty: [first,second]")


@dataclass
class DatasetConfig:
    """Which data set is read: of the Hugging Face hub, or a folder in a data set's layout."""

    name: str = ""
    """As `datasets.load_dataset` takes it: wikimedia/wikipedia, or a folder."""
    subset: str | None = None
    """The data set's configuration, 20231101.en for example."""
    split: str = "train"
    valid_split: str | None = None
    """Validation text; none: cut from `split` by document hash."""
    revision: str | None = None
    """Branch, tag or commit; give a commit to hold on to exactly this text."""
    text_field: str = "text"
    streaming: bool = True
    """Read over the network as it comes; false: download the whole data set into the library's cache first."""


@dataclass
class TextDataConfig(FilesConfig, DataConfig):
    """The user's own files, mixed freely: plain text and .jsonl, also packed as .bz2, .gz, .xz or .zst, and .parquet."""

    kind: str = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_files("data")


@dataclass
class HubDataConfig(DatasetConfig, DataConfig):
    """A data set, read by `datasets`."""

    kind: str = "hub"


@dataclass
class SourceConfig(DatasetConfig, FilesConfig):
    """One source of a mixture: files (`paths`) or a data set of the hub (`name`)."""

    weight: float = 1.0
    """Samples drawn from it, relative to the other sources' weights."""


@dataclass
class MixtureDataConfig(DataConfig):
    """Several sources, drawn from by weight; which one a sample comes from follows from its position alone."""

    kind: str = "mixture"
    mixture: dict[str, Any] = field(default_factory=dict)
    """Name -> `SourceConfig`, for example data.mixture.books.paths=[books/] data.mixture.books.weight=1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixture = {str(name): _source(str(name), values) for name, values in self.mixture.items()}


@dataclass
class PreparedDataConfig(DataConfig):
    """A folder that `python -m pretrain.prepare` made, wherever it lies now; the corpus is not needed, and `tokenizer` has no effect."""

    kind: str = "prepared"
    path: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights of a mixture's sources, by name; empty: those it was prepared with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weight in self.weights.items():
            require(0 < weight < math.inf, f"data.weights.{name}", weight, "a number above 0")


def _source(name: str, values: Any) -> SourceConfig:
    key = f"data.mixture.{name}"
    plain = bool(_PLAIN_NAME.fullmatch(name)) and name != "tokenizer"  # which has a folder beside the sources'
    require(plain, "data.mixture", repr(name), "names of letters, digits, - and _, other than tokenizer")
    try:
        source = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SourceConfig), values))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        known = ", ".join(part.name for part in fields(SourceConfig))
        raise UserError(f"{key}: {str(error).partition(chr(10))[0]}; its settings are {known}") from error
    require_positive(key, source, "weight")
    source.check_files(key)
    if bool(source.paths) == bool(source.name):
        raise UserError(f"{key} must have either paths (files) or name (a data set of the hub); give {key}.paths=[...] or {key}.name=...")
    return source


@dataclass
class TokenizerConfig:
    """Text to ids: trained on the corpus, or read from the files given."""

    kind: str = "auto"
    """auto follows the model: wordpiece for BERT, bpe (byte-level) for GPT-2."""
    path: str | None = None
    """A tokenizer's folder in Hugging Face format or its name on the hub (bert-large-uncased, gpt2); vocab.txt (wordpiece); vocab.json with
    merges.txt beside it (bpe); none: train on the corpus."""
    vocab_size: int | None = None
    """Entries, special tokens included; none: the file's own, or when trained the published 30,522 and 50,257."""
    lowercase: bool | None = None
    """WordPiece only, as the uncased models; none: as the given tokenizer says, else true."""
    training_megabytes: int = 1000
    """Text that a tokenizer is trained on at most, taken from all over the corpus."""

    def __post_init__(self) -> None:
        require_choice("tokenizer.kind", self.kind, ("auto", "wordpiece", "bpe"))
        require_positive("tokenizer", self, "vocab_size", "training_megabytes")
