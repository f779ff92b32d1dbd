"""What others do with the same text, each a command of its own so that its memory can be watched.

    python scripts/data_bench/plain.py datasets TOKENIZER_FOLDER LENGTH OUTPUT FILES...
    python scripts/data_bench/plain.py tokenizers TOKENIZER_FOLDER FILES...

`datasets` is what transformers' run_mlm.py (for BERT) and run_clm.py (for GPT-2) do with text files: `load_dataset("text")`, `map` to
tokenize, `map(group_texts)` into blocks of LENGTH, both on all cores; when that is said it also saves the blocks in OUTPUT. `tokenizers` is
`encode_batch_fast` alone, with its own threads, on text that lies in memory ready to be encoded. Each says one line of JSON when it is
done: how many blocks, or how many tokens without [CLS] and [SEP] and the seconds that the encoding took.
"""

import json
import os
import sys
import time
from itertools import chain
from pathlib import Path

_TEXTS_AT_ONCE = {"bert": 20_000, "gpt2": 1_000}


def group_texts(examples: dict[str, list], length: int) -> dict[str, list]:
    """All texts of a batch one behind the other, cut into blocks; the rest is left out (as in run_mlm.py)."""
    joined = {name: list(chain.from_iterable(lists)) for name, lists in examples.items()}
    total = len(joined["input_ids"]) // length * length
    return {name: [values[start : start + length] for start in range(0, total, length)] for name, values in joined.items()}


def with_datasets(tokenizer_folder: str, length: int, output: str, files: list[str]) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # GPT-2's lines are longer than its positions, which group_texts mends
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    is_bert = tokenizer.mask_token is not None
    num_proc = len(os.sched_getaffinity(0))

    def tokenize(examples: dict[str, list]) -> dict[str, list]:
        return tokenizer(examples["text"], return_special_tokens_mask=is_bert)

    text = load_dataset("text", data_files=files, split="train", cache_dir=f"{output}.cache", keep_linebreaks=not is_bert)
    tokenized = text.map(tokenize, batched=True, num_proc=num_proc, remove_columns=["text"])
    blocks = tokenized.map(group_texts, batched=True, num_proc=num_proc, fn_kwargs={"length": length})
    print(json.dumps({"blocks": len(blocks)}), flush=True)
    blocks.save_to_disk(output)


def with_tokenizers(tokenizer_folder: str, files: list[str]) -> None:
    from pretrain.config.compose import compose
    from pretrain.data.corpus import open_sources
    from pretrain.data.sentences import sentences_of
    from pretrain.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(Path(tokenizer_folder))
    tokenizer.encode_special_tokens = True
    family = "bert" if tokenizer.token_to_id("[MASK]") is not None else "gpt2"
    tokens, seconds = 0, 0.0
    batch: list[str] = []

    def encode() -> None:
        nonlocal tokens, seconds
        start = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        seconds += time.perf_counter() - start
        tokens += sum(len(encoding.ids) for encoding in encodings)
        batch.clear()

    (source,) = open_sources(compose(["data=text", f"data.paths=[{','.join(files)}]"]).data)
    for document in source.train.documents():
        batch.extend(sentences_of(document.split("\n")) if family == "bert" else [document])
        if len(batch) >= _TEXTS_AT_ONCE[family]:
            encode()
    encode()
    print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


def main() -> None:
    way, tokenizer_folder, *rest = sys.argv[1:]
    if way == "datasets":
        length, output, *files = rest
        with_datasets(tokenizer_folder, int(length), output, files)
    else:
        with_tokenizers(tokenizer_folder, rest)


if __name__ == "__main__":
    main()
