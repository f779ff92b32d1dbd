"""Mistakes in a folder of the user's own YAML files."""

import random

from tests.faults.mistakes.mistake import Mistake

FILES = {
    "run: [\n": "mine.yaml",
    "run: {name: x\n": "mine.yaml",
    "\trun: 3\n": "mine.yaml",
    "run: *nowhere\n": "mine.yaml",
    "a: b: c\n": "mine.yaml",
    "'unfinished\n": "mine.yaml",
    "run: !!python/object/apply:os.system ['false']\n": "mine",
    "- a\n- list\n": "mine",
    "just text\n": "mine",
    "3\n": "mine",
    "\0\0\0": "mine",
    "\ufeff{": "mine",
    "defaults: 3\n": "mine",
    "defaults: [nowhere]\n": "nowhere",
    "defaults: [demo, {override /model: huge}]\n": "model=huge",
    "defaults: [demo, {override /modle: bert_tiny}]\n": "modle",
    "defaults: [demo, {a: b, c: d}]\n": "mine",
    "defaults: [demo, [a]]\n": "mine",
    "defaults: [demo, null]\n": "mine",
    "defaults: [mine]\n": "mine",
    "defaults: [demo, _self_]\ntrain: {num_stepz: 3}\n": "train.num_stepz",
    "defaults: [demo, _self_]\ntrain: {num_steps: soon}\n": "train.num_steps",
    "defaults: [demo, _self_]\ntrain: {num_steps: -3}\n": "train.num_steps",
    "defaults: [demo, _self_]\ntrain: {num_steps: [3]}\n": "train.num_steps",
    "defaults: [demo, _self_]\ntrain: {num_steps: .nan}\n": "train.num_steps",
    "defaults: [demo, _self_]\ntrain: {num_steps: null}\n": "train.num_steps",
    "defaults: [demo, _self_]\ntrain: {num_steps: 2026-01-01}\n": "train.num_steps",
    "defaults: [demo, _self_]\ntrain: {1: 3}\n": "train",
    "defaults: [demo, _self_]\ntrain: {null: 3}\n": "train",
    "defaults: [demo, _self_]\ntrain: 3\n": "train",
    "defaults: [demo, _self_]\ntrain: [1]\n": "train",
    "defaults: [demo, _self_]\ntrain: null\n": "train",
    "defaults: [demo, _self_]\ntrain: {num_steps: 3, num_steps: 4}\n": "num_steps",
    "defaults: [demo, _self_]\nfoo: {name: x}\n": "foo",
    "defaults: [demo, _self_]\nrun: {name: '${nowhere}'}\n": "run.name",
    "defaults: [demo, _self_]\nrun: {name: a/b}\n": "run.name",
    "defaults: [demo, _self_]\nmodel: bert_base\n": "model",
    "defaults: [demo, _self_]\noptimizer: {lr: 1e-4e}\n": "optimizer.lr",
    "defaults: [_self_]\nrun: {name: x}\n": "train",
    "": "run",
}


def bad_file(rng: random.Random) -> Mistake:
    text, name = rng.choice(list(FILES.items()))
    experiment = f"# @package _global_\n{text}".encode()
    return Mistake(("-cd", "mine", "experiment=mine"), (name,), files={"mine/experiment/mine.yaml": experiment})


def unreadable_file(rng: random.Random) -> Mistake:
    contents = rng.choice(
        [None, b"\xff\xfe\x00r", bytes(range(256)), b"# @package _global_\nrun: \xe9\n", b"# @package nowhere.x\nname: x\n", b"\x80"]
    )
    return Mistake(("--config-dir", "mine", "experiment=mine"), ("mine",), files={"mine/experiment/mine.yaml": contents})
