"""Mistakes in what a run needs from outside: its text, its tokenizer, its folders."""

import random

from tests.faults.mistakes.mistake import Mistake

TEXT = b"This is a sentence of the corpus. This is another one, and there are more.\n\n" * 200
SMALL = (
    "data=text",
    "data.paths=[corpus.txt]",
    "data.cache_dir=cache",
    "tokenizer.vocab_size=300",
    "tracker=none",
    "data.max_seq_length=16",
)
OUTSIDE = {
    "data=text": "data.paths",
    "data=text data.paths=[]": "data.paths",
    "data=text data.paths=[nowhere.txt]": "nowhere.txt",
    "data=text data.paths=[a_folder]": "a_folder",
    "data=text data.paths=[empty.txt]": "data.paths",
    "data=text data.paths=[*.nothing]": "*.nothing",
    "data=text data.paths=[program]": "program",
    "data=text data.paths=['']": "data.paths",
    "data=text data.paths=[bad.jsonl]": "bad.jsonl",
    "data=text data.paths=[bad.gz]": "bad.gz",
    "data=text data.paths=[bad.zst]": "bad.zst",
    "data=text data.paths=[bad.parquet]": "bad.parquet",
    "data=text data.paths=[records.jsonl] data.text_field=body": "data.text_field",
    "data=text data.paths=[corpus.txt] data.valid_paths=[nowhere.txt]": "nowhere.txt",
    "data=prepared": "data.path",
    "data=prepared data.path=nowhere": "nowhere",
    "data=prepared data.path=corpus.txt": "corpus.txt",
    "data=prepared data.path=a_folder": "a_folder",
    "data=mixture": "data.mixture",
    "data=mixture data.mixture.a.paths=[nowhere.txt]": "nowhere.txt",
    "data=hub": "data.name",
    "data=hub data.name=corpus.txt": "corpus.txt",
    "data=hub data.name=a_folder": "a_folder",
    "SMALL tokenizer.path=nowhere/vocab.txt": "nowhere/vocab.txt",
    "SMALL tokenizer.path=empty.txt": "empty.txt",
    "SMALL tokenizer.path=a_folder": "a_folder",
    "SMALL tokenizer.path=program": "program",
    "SMALL data.cache_dir=corpus.txt": "data.cache_dir",
    "SMALL data.cache_dir=corpus.txt/cache": "data.cache_dir",
    "SMALL data.cache_dir=/proc/cache": "data.cache_dir",
    "SMALL tokenizer.vocab_size=20": "vocab_size",
}
FILES_OUTSIDE = {
    "corpus.txt": TEXT,
    "empty.txt": b"",
    "program": b"\x7fELF" + bytes(range(256)) * 64,
    "bad.jsonl": b'{"text": "whole"}\n{"text": "brok\n[[[\n',
    "bad.gz": b"not a gzip file",
    "bad.zst": b"not a zst file",
    "bad.parquet": b"PAR1 but not really",
    "records.jsonl": b'{"text": "whole"}\n' * 20,
    "a_folder": None,
}
RUN_ALONE = {
    "SMALL run.dir=corpus.txt": "run.dir",
    "SMALL run.dir=corpus.txt/runs": "run.dir",
    "SMALL run.dir=/proc/runs": "run.dir",
    "SMALL run.resume=must": "run.resume",
    "SMALL train.precision=fp16 zero=stage1": "train.precision",
}


def in_full(arguments: str) -> tuple[str, ...]:
    return tuple(part for argument in arguments.split() for part in (SMALL if argument == "SMALL" else (argument,)))


def missing_outside(rng: random.Random) -> Mistake:
    command = rng.choice(["pretrain", "pretrain.prepare"])
    arguments, name = rng.choice(list((OUTSIDE | (RUN_ALONE if command == "pretrain" else {})).items()))
    return Mistake(in_full(arguments), (name,), command, FILES_OUTSIDE)
