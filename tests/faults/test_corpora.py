"""Text and tokenizers that cannot be trained on: one line with the mend, exit code 2, and nothing left behind."""

import bz2
import re
from pathlib import Path

import pytest

TEXT = "\n\n".join(f"This is document number {number}.\nIt has two sentences, and the second one is longer." for number in range(40))


def no_file(folder: Path) -> tuple[str, ...]:
    return ("data.paths=[nowhere.txt]",)


def no_match(folder: Path) -> tuple[str, ...]:
    return ("data.paths=[*.jsonl]",)


def empty(folder: Path) -> tuple[str, ...]:
    (folder / "empty.txt").write_text("\n\n")
    return ("data.paths=[empty.txt]",)


def undecodable(folder: Path) -> tuple[str, ...]:
    (folder / "latin.txt").write_bytes(b"caf\xe9 au lait\n" * 30 + TEXT.encode()[:200])
    return ("data.paths=[latin.txt]",)


def no_data_set(folder: Path) -> tuple[str, ...]:
    return ("data=hub", "data.name=nobody/nothing")


def no_sources(folder: Path) -> tuple[str, ...]:
    return ("data=mixture",)


def not_prepared(folder: Path) -> tuple[str, ...]:
    return ("data=prepared", "data.path=nowhere")


def truncated(folder: Path) -> tuple[str, ...]:
    (folder / "cut.txt.bz2").write_bytes(bz2.compress(TEXT.encode())[:-20])
    return ("data.paths=[cut.txt.bz2]",)


def below_one_sample(folder: Path) -> tuple[str, ...]:
    (folder / "short.txt").write_text("Too short.\n\nThis too.")
    return ("data.paths=[short.txt]", "model=gpt2_tiny", "objective=clm", "data.max_seq_length=512", "tokenizer.vocab_size=300")


def vocabulary_too_small(folder: Path) -> tuple[str, ...]:
    (folder / "text.txt").write_text(TEXT)
    return ("data.paths=[text.txt]", "tokenizer.vocab_size=12")


def vocabulary_without_mask(folder: Path) -> tuple[str, ...]:
    (folder / "text.txt").write_text(TEXT)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    return ("data.paths=[text.txt]", "tokenizer.path=vocab.txt", "tokenizer.vocab_size=null")


def vocabulary_of_another_size(folder: Path) -> tuple[str, ...]:
    (folder / "text.txt").write_text(TEXT)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n")
    return ("data.paths=[text.txt]", "tokenizer.path=vocab.txt", "tokenizer.vocab_size=30522")


def unwritable_cache(folder: Path) -> tuple[str, ...]:
    (folder / "text.txt").write_text(TEXT)
    return ("data.paths=[text.txt]", "data.cache_dir=/dev/null/cache")


CASES = {
    no_file: "nowhere.txt",
    no_match: r"\*\.jsonl",
    empty: "data.paths",
    undecodable: r"latin\.txt is not UTF-8 text: 30 of \d+ lines",
    no_data_set: r"data\.name=nobody/nothing cannot be read",
    no_sources: r"data=mixture has no sources; add some",
    not_prepared: r"data\.path=nowhere is not a folder",
    truncated: r"cut\.txt\.bz2",
    below_one_sample: "sample",
    vocabulary_too_small: r"tokenizer\.vocab_size=12 .* give \d+ or more",
    vocabulary_without_mask: r"vocab\.txt.*\[MASK\]",
    vocabulary_of_another_size: "tokenizer.vocab_size",
    unwritable_cache: r"data\.cache_dir",
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_it_is_one_line_with_the_mend_and_nothing_is_left(fork_pretrain, make) -> None:
    folder = fork_pretrain.folder
    settings = make(folder)
    group, *_ = [setting for setting in settings if setting.startswith("data=")] or ["data=text"]
    done = fork_pretrain(group, "data.cache_dir=cache", "run.dir=runs", "tracker=none", "launch.num_processes=1", *settings)
    assert done.returncode == 2, done.stderr
    *notices, error = done.stderr.strip().splitlines()
    assert error.startswith("error: ") and re.search(CASES[make], error), done.stderr
    assert all(notice.startswith(("preparing ", "training the tokenizer", "tokenizing", "text: ")) for notice in notices), done.stderr
    assert not (folder / "runs").exists()
    left = [path for path in (folder / "cache").glob("*") if path.suffix != ".lock"] if (folder / "cache").exists() else []
    assert left == [] or make is below_one_sample  # that corpus is whole, only too small for this length
