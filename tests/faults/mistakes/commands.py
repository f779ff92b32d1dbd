"""Mistakes in the arguments of the commands."""

import random

from tests.faults.mistakes.mistake import HUGE, Mistake
from tests.faults.mistakes.outside import FILES_OUTSIDE, TEXT, in_full
from tests.faults.mistakes.settings import misspelt_key, out_of_range, unknown_choice, unreadable_value, wrong_type


def bad_option(rng: random.Random) -> Mistake:
    option = rng.choice(
        [
            "-m",
            "--multirun",
            "--cgf",
            "--run",
            "-x",
            "--config-dir",
            "-cd",
            "--cfg",
            "--confg-dir=x",
            "--resolve",
            "-vv",
            "--dry-run",
            "--\u00e9",
        ]
    )
    arguments = rng.choice([(option,), (f"{option}=3",), ("train.num_steps=3", option)])
    if option == "--cfg":
        arguments = rng.choice([("--cfg",), ("--cfg", "hydra"), ("--cfg", ""), ("--cfg=all", "train.num_steps=3")])
    if option in ("--config-dir", "-cd"):
        arguments = rng.choice(
            [(option,), (option, "nowhere"), (option, "a_file"), (option, "x" * 300), (option, "\u00e9/\U0001f525"), (option, "nul\0l")]
        )
    return Mistake(arguments, ("option", "argument", option, "config-dir", "cfg"), files={"a_file": b"x"})


PREPARE = {
    "-o": "-o",
    "--output": "--output",
    "--verify=yes": "--verify",
    "--nope": "--nope",
    "--cfg job": "--cfg",
    "SMALL --verify": "prepared corpus",
    "SMALL --verify -o nowhere": "nowhere",
    "SMALL --verify -o a_folder": "a_folder",
    "SMALL -o corpus.txt": "corpus.txt",
    "SMALL -o corpus.txt/prepared": "corpus.txt",
    "SMALL -o /proc/prepared": "/proc/prepared",
    "data=prepared data.path=a_folder -o b": "--output",
    "data=prepared data.path=a_folder --verify": "a_folder",
    "data=prepared data.path=nowhere --verify": "nowhere",
}


def bad_prepare(rng: random.Random) -> Mistake:
    if rng.random() < 0.4:
        drawn = rng.choice([wrong_type, out_of_range, misspelt_key, unknown_choice, unreadable_value])(rng)
        if not any(word in drawn.arguments[-1] for word in ("batch_size", "num_processes", "timeout")):  # which a preparation does without
            return Mistake(drawn.arguments, drawn.names, "pretrain.prepare")
    arguments, name = rng.choice(list(PREPARE.items()))
    return Mistake(in_full(arguments), (name,), "pretrain.prepare", FILES_OUTSIDE)


SAMPLE = {
    "": "RUN",
    "nowhere": "nowhere",
    "corpus.txt": "corpus.txt",
    "a_folder": "a_folder",
    "run text": "run",
    "listed text": "listed",
    "broken text": "broken",
    "unknown text": "unknown",
    "a_folder a b": "b",
    "a_folder --top 0": "--top",
    "a_folder --top many": "--top",
    "a_folder --top": "--top",
    "a_folder --temperature nan": "--temperature",
    "a_folder --temperature -1": "--temperature",
    "a_folder --temperature inf": "--temperature",
    "a_folder --top-k -1": "--top-k",
    "a_folder --top-p 2": "--top-p",
    "a_folder --top-p \u00bd": "--top-p",
    "a_folder --seed -1": "--seed",
    f"a_folder --seed {HUGE}": "--seed",
    "a_folder --num-samples 0": "--num-samples",
    "a_folder --max-new-tokens 1.5": "--max-new-tokens",
    "a_folder --max-tokens 5": "--max-tokens",
    "a_folder --nope": "--nope",
    "broken --device warp": "warp",
    "broken --device cuda:99": "cuda:99",
    "broken --device \u00e9": "\u00e9",
    "a_folder bad\udcffprompt": "prompt",
}
FILES_OF_MODELS = {
    "corpus.txt": TEXT,
    "a_folder": None,
    "run/config.yaml": b"run: [",
    "listed/config.json": b"[1]",
    "broken/config.json": b"{",
    "unknown/config.json": b'{"model_type": "gpt9"}',
}


def bad_sample(rng: random.Random) -> Mistake:
    arguments, name = rng.choice(list(SAMPLE.items()))
    return Mistake(tuple(arguments.split()), (name,), "pretrain.sample", FILES_OF_MODELS)
