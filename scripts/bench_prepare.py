"""Prepare a mixture of real corpora beside the `tokenizers` library alone on the same text, then kill a preparation and go on with it.

    python scripts/bench_prepare.py --wiki WIKI_FILES... --books BOOK_FILES... --vocab vocab.txt [--gpt2 vocab.json]

Prints Markdown: tokens per second of both, the largest memory of all processes together, whether the files after a kill -9 in the middle are
the same to the byte, and the token counts beside those of transformers' own tokenizers on the same documents.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from pretrain.config.compose import compose
from pretrain.data.corpus import open_sources
from pretrain.data.prepared import open_prepared, whole_manifest
from pretrain.data.sentences import sentences_of
from pretrain.data.tokenizer import load_tokenizer

_BATCH = 20_000
_KILL_AT_SHARE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wiki", nargs="+", required=True)
    parser.add_argument("--books", nargs="+", required=True)
    parser.add_argument("--vocab", required=True, help="BERT's vocab.txt")
    parser.add_argument("--gpt2", help="GPT-2's vocab.json, merges beside it")
    arguments = parser.parse_args()
    families = [("bert", ["model=bert_base", "objective=mlm_nsp", f"tokenizer.path={arguments.vocab}"])]
    if arguments.gpt2:
        families.append(("gpt2", ["model=gpt2_small", "objective=clm", f"tokenizer.path={arguments.gpt2}"]))
    print(f"{os.cpu_count()} cores; load before: {os.getloadavg()[0]:.2f}\n")
    print("| model | preparation, s | tokens | tokens/s | tokenizers alone, s | tokens/s | slower by | peak memory, MB | after kill -9 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for family, settings in families:
        with tempfile.TemporaryDirectory() as scratch:
            _bench(family, [*settings, *_mixture(arguments), "tokenizer.vocab_size=null"], Path(scratch))
    for family, settings in families:
        _compare_with_transformers(family, [*settings, "data=text", f"data.paths=[{arguments.wiki[0]}]", "tokenizer.vocab_size=null"])


def _mixture(arguments: argparse.Namespace) -> list[str]:
    wiki, books = (",".join(str(Path(path).resolve()) for path in paths) for paths in (arguments.wiki, arguments.books))
    return ["data=mixture", f"data.mixture.wiki.paths=[{wiki}]", "data.mixture.wiki.weight=3", f"data.mixture.books.paths=[{books}]"]


def _bench(family: str, settings: list[str], scratch: Path) -> None:
    whole, seconds, peak_bytes = _prepare(settings, scratch / "whole")
    manifest = whole_manifest(whole)
    tokens = sum(split["tokens"] for source in manifest["sources"].values() for split in source["counts"].values())
    alone_tokens, alone_seconds = _tokenizers_alone(family, settings, whole)
    killed, _, _ = _prepare(settings, scratch / "killed", kill_after=seconds * _KILL_AT_SHARE)
    resumed, resumed_seconds, _ = _prepare(settings, scratch / "killed")
    same = "the same files" if whole_manifest(resumed)["files"] == manifest["files"] and not killed else "DIFFERENT FILES"
    slower = (alone_tokens / alone_seconds) / (tokens / seconds) - 1
    print(
        f"| {family} | {seconds:.1f} | {tokens:,} | {tokens / seconds:,.0f} | {alone_seconds:.1f} | {alone_tokens / alone_seconds:,.0f} "
        f"| {slower:.1%} | {peak_bytes / 1e6:.0f} | {same}, {resumed_seconds:.1f} s after a kill at {_KILL_AT_SHARE:.0%} |",
        flush=True,
    )


def _prepare(settings: list[str], cache: Path, kill_after: float | None = None) -> tuple[Path | None, float, int]:
    """The prepared folder (None where it was killed), seconds, and the largest memory of all its processes together (PSS, bytes)."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pretrain.prepare", *settings, f"data.cache_dir={cache}"], stdout=subprocess.DEVNULL)
    peak = [0]
    watcher = threading.Thread(target=_watch_memory, args=(process.pid, peak), daemon=True)
    watcher.start()
    try:
        code = process.wait(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None, 0.0, 0
    seconds = time.perf_counter() - start
    watcher.join()
    assert code == 0
    (folder,) = (path for path in cache.iterdir() if (path / "manifest.json").exists())
    return folder, seconds, peak[0]


def _watch_memory(pid: int, peak: list[int]) -> None:
    try:
        parent = psutil.Process(pid)
        while True:
            total = 0
            for process in [parent, *parent.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)
            if not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.1)
    except psutil.Error:
        return


def _tokenizers_alone(family: str, settings: list[str], prepared: Path) -> tuple[int, float]:
    """Tokens and seconds of `encode_batch_fast` alone, with its own threads, on the same text, which lies in memory ready to be encoded."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    tokenizer.encode_special_tokens = True
    tokens, seconds = 0, 0.0
    batch: list[str] = []

    def encode() -> None:
        nonlocal tokens, seconds
        start = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        seconds += time.perf_counter() - start
        tokens += sum(len(encoding.ids) for encoding in encodings)
        batch.clear()

    for source in open_sources(compose(settings).data):
        for document in source.train.documents():
            batch.extend(sentences_of(document.split("\n")) if family == "bert" else [document])
            if len(batch) >= (_BATCH if family == "bert" else _BATCH // 20):
                encode()
    encode()
    return tokens, seconds


def _compare_with_transformers(family: str, settings: list[str]) -> None:
    """Token counts of one shard's documents beside those of transformers' own tokenizer classes."""
    import transformers

    cache = Path(tempfile.mkdtemp())
    try:
        folder, _, _ = _prepare(settings, cache)
        prepared = open_prepared(folder)
        files = prepared.tokenizer_dir
        if family == "bert":
            theirs = transformers.BertTokenizerFast(vocab=str(files / "vocab.txt"))
        else:
            theirs = transformers.GPT2TokenizerFast(vocab=str(files / "vocab.json"), merges=str(files / "merges.txt"))
        theirs.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        documents = list(open_sources(compose(settings).data)[0].train.documents())
        counted = 0
        for start in range(0, len(documents), 500):
            counted += sum(map(len, theirs(documents[start : start + 500], add_special_tokens=False)["input_ids"]))
        (source,) = prepared.manifest["sources"].values()
        ours = sum(split["tokens"] for split in source["counts"].values())
        ours -= sum(split["documents"] for split in source["counts"].values()) if family == "gpt2" else 0  # <|endoftext|>
        verdict = "equal" if ours == counted else "DIFFERENT"
        print(f"\n{family}, one Wikipedia shard: {ours:,} tokens here, {counted:,} from {type(theirs).__name__}: {verdict}", flush=True)
    finally:
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
