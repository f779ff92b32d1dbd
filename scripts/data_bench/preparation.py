"""Files of text -> samples' tokens: ours beside `datasets.map` and the `tokenizers` library alone, and our memory as the corpus grows."""

import bz2
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_bench.watched import Watched, watch

from pretrain.data.prepared import whole_manifest

OURS, DATASETS, ALONE = "pretrain.prepare", "datasets.map + group_texts", "tokenizers alone"
_PLAIN = Path(__file__).with_name("plain.py")
_QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
_SENTENCES_PER_DOCUMENT = (1, 15)
_DOCUMENTS_AT_ONCE, _COPIES_OF_THEM = 2000, 200
_AS_IF_CORES = (
    "import os, runpy; os.sched_getaffinity = lambda pid: set(range({})); runpy.run_module('pretrain.prepare', run_name='__main__')"
)


@dataclass(frozen=True)
class Family:
    """A model family and its vocabulary."""

    name: str
    settings: Sequence[str]
    block_length: int


def bert(vocabulary: str) -> Family:
    return Family("bert", ["model=bert_base", "objective=mlm_nsp", f"tokenizer.path={vocabulary}", "tokenizer.vocab_size=null"], 128)


def gpt2(vocabulary: str) -> Family:
    return Family("gpt2", ["model=gpt2_small", "objective=clm", f"tokenizer.path={vocabulary}", "tokenizer.vocab_size=null"], 1024)


@dataclass
class Preparations:
    """Every repeat of each way to prepare the same files.

    Attributes:
        ours, blocks: the folders that the last repeats of ours and of `datasets` left.
        tokens: of the text, as the `tokenizers` library counts them.
        our_tokens: what ours wrote, without what it puts behind a document.
        watched: by way.
    """

    ours: Path
    blocks: Path
    tokens: int = 0
    our_tokens: int = 0
    watched: dict[str, list[Watched]] = field(default_factory=lambda: {OURS: [], DATASETS: [], ALONE: []})

    def seconds(self, way: str) -> list[float]:
        return [watched.said.get("seconds", watched.seconds) for watched in self.watched[way]]


def measure(family: Family, files: Sequence[Path], repeats: int, scratch: Path) -> Preparations:
    """Prepare the files each way in turn, `repeats` times."""
    made = Preparations(scratch / family.name, scratch / f"{family.name}.blocks")
    for repeat in range(repeats):
        for folder in (made.ours, made.blocks, made.blocks.with_name(made.blocks.name + ".cache")):
            shutil.rmtree(folder, ignore_errors=True)
        tokenizer = made.ours / "tokenizer"
        commands = {
            OURS: prepare_command(family, files, made.ours),
            DATASETS: [sys.executable, _PLAIN, "datasets", tokenizer, family.block_length, made.blocks, *files],
            ALONE: [sys.executable, _PLAIN, "tokenizers", tokenizer, *files],
        }
        for way, command in commands.items():
            tell(f"{family.name}, {way}, {repeat + 1} of {repeats}")
            made.watched[way].append(watch(command, _QUIET))
    made.tokens = made.watched[ALONE][-1].said["tokens"]
    made.our_tokens = _written(made.ours, "tokens") - (_written(made.ours, "documents") if family.name == "gpt2" else 0)
    return made


def prepare_command(family: Family, files: Sequence[Path], output: Path, *settings: str, cores: int | None = None) -> list[str | Path]:
    """The whole command; with `cores` it is told that it has so many, whatever there are."""
    start = ["-m", "pretrain.prepare"] if cores is None else ["-c", _AS_IF_CORES.format(cores)]
    paths = ",".join(str(path.resolve()) for path in files)
    return [sys.executable, *start, *family.settings, "data=text", f"data.paths=[{paths}]", *settings, "-o", output]


@dataclass(frozen=True)
class Growth:
    """One corpus size, prepared by so many processes, without copies of documents."""

    corpus_bytes: int
    documents: int
    processes: int
    watched: Watched


def measure_growth(family: Family, files: Sequence[Path], gigabytes: Sequence[float], processes: int, scratch: Path) -> list[Growth]:
    """Prepare made corpora of these sizes: documents dealt from the sentences of `files`, some of them twice, deduplicated."""
    sentences = [line for path in files for line in _text_of(path).split("\n") if line]
    grown = []
    for size in gigabytes:
        corpus, output = scratch / "grown.txt", scratch / "grown"
        tell(f"making a corpus of {size:g} GB")
        _deal(sentences, int(size * 1e9), corpus)
        tell(f"preparing {size:g} GB with {processes} processes")
        watched = watch(prepare_command(family, [corpus], output, "data.deduplicate=true", cores=processes))
        grown.append(Growth(corpus.stat().st_size, _written(output, "documents"), processes, watched))
        corpus.unlink()
        shutil.rmtree(output)
    return grown


def tell(line: str) -> None:
    """Progress, apart from the report."""
    print(line, file=sys.stderr, flush=True)


def _written(prepared: Path, what: str) -> int:
    return sum(split[what] for source in whole_manifest(prepared)["sources"].values() for split in source["counts"].values())


def _text_of(path: Path) -> str:
    data = path.read_bytes()
    return (bz2.decompress(data) if path.suffix == ".bz2" else data).decode("utf-8")


def _deal(sentences: Sequence[str], num_bytes: int, path: Path) -> None:
    dealer = random.Random(0)
    copied: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < num_bytes:
            documents = [
                "\n".join(dealer.choices(sentences, k=dealer.randint(*_SENTENCES_PER_DOCUMENT))) for _ in range(_DOCUMENTS_AT_ONCE)
            ]
            file.write("\n\n".join([*documents, *copied, ""]))
            copied = documents[:_COPIES_OF_THEM]
