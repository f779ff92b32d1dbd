"""Configurations and command lines with one mistake each, drawn at random from the schema: the same ones for the same seed.

A kind of mistake is a function that draws one; what a user's folder needs for it is written there.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pretrain.config.location import group_choices
from pretrain.config.registry import SCHEMAS, known_keys

STRANGE_TEXT = (
    "",
    " ",
    "\u00e9t\u00e9",
    "\u4e2d\u6587",
    "\U0001f525",
    "\u202eabc",
    "nul\tl",
    "%s",
    "--",
    "\u00a0",
    "NaN",
    "../..",
    "x" * 300,
)
"""Text that no choice, key or number is."""
HUGE = "1" + "0" * 400


@dataclass(frozen=True)
class Mistake:
    """A command line that has to be refused."""

    arguments: tuple[str, ...]
    names: tuple[str, ...]
    """One of these has to be in the complaint: the key or the argument that is wrong."""
    command: str = "pretrain"
    """The module: pretrain, pretrain.prepare or pretrain.sample."""
    files: dict[str, bytes | None] = field(default_factory=dict, hash=False, compare=False)
    """What lies in the folder where the command is given: path -> contents; None: a folder."""

    def write_files(self, folder: Path) -> None:
        for name, contents in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if contents is None else path.write_bytes(contents)

    def __str__(self) -> str:
        return f"{self.command} {' '.join(map(repr, self.arguments))[:200]}"


def draw(count: int, seed: int) -> list[Mistake]:
    """`count` different mistakes; every kind takes its turn."""
    rng, found = random.Random(seed), {}
    turn = 0
    while len(found) < count:
        mistake = KINDS[turn % len(KINDS)](rng)
        found.setdefault((mistake.command, mistake.arguments, *map(repr, mistake.files.items())), mistake)
        turn += 1
    return list(found.values())


# Keys and values ------------------------------------------------------------------------------------------------------------------

_GPT2 = ("model=gpt2_tiny", "objective=clm")
_CHOSEN_BY = {"model.gpt2": _GPT2, "objective.clm": _GPT2, "zero.zero": (), "schedule.schedule": ()}
"""Group and dataclass -> what chooses it, where it is not simply group=name."""


def _keys() -> dict[str, tuple[tuple[str, ...], object]]:
    """Every key, what has to be chosen so that it exists, and its type. Names of dataclasses and free mappings are left out."""
    found = {key: ((), kind) for key, kind in known_keys().items() if key.partition(".")[0] not in SCHEMAS}
    for group, classes in SCHEMAS.items():
        for name, cls in classes.items():
            choice = _CHOSEN_BY.get(f"{group}.{name}", (f"{group}={'bert_tiny' if name == 'bert' else name}",))
            found |= {f"{group}.{key}": (choice, kind) for key, kind in cls.__dataclass_fields__.items()}
    return {key: (choice, getattr(kind, "type", kind)) for key, (choice, kind) in found.items()}


KEYS = _keys()
WRONG_VALUES = {
    "int": ("abc", "1.5", "[1,2]", "{a: 1}", "null", "''", "1_000_", "0x", "1e400", "nan", "\u4e2d", "true_", "[]"),
    "float": ("abc", "[1.0]", "{a: 1}", "null", "''", "1,5", "1.2.3", "1e", "\u221e", "half"),
    "bool": ("maybe", "''", "[true]", "{a: true}", "null", "2.5", "\u2713", "yess"),
    "str": ("[a,b]", "{a: b}", "null", "[]"),
    "list": ("abc", "3", "{a: 1}", "null", "true", "''"),
    "dict": ("abc", "3", "[1,2]", "null"),
}
_NAMES = {int: "int", float: "float", bool: "bool", str: "str"}


def _kind_of(wanted: object) -> tuple[str, bool]:
    """The entry of `WRONG_VALUES`, and whether null is right."""
    text = str(wanted)
    if text.startswith(("list", "dict")):
        return text[:4], False
    optional = "None" in text
    return next(name for cls, name in _NAMES.items() if wanted is cls or (optional and name in text)), optional


def wrong_type(rng: random.Random) -> Mistake:
    key, (choice, wanted) = rng.choice(list(KEYS.items()))
    kind, optional = _kind_of(wanted)
    value = rng.choice([value for value in WRONG_VALUES[kind] if not (optional and value == "null")])
    return Mistake((*choice, f"{rng.choice(['', '+', '++'])}{key}={value}"), (key,))


POSITIVE = ("0", "-1", "-0.5", "nan", "inf", "-inf")
FRACTION = ("-0.1", "1", "1.5", "nan", "inf")
OUT_OF_RANGE = {
    "train.global_batch_size": ("0", "-8", f"-{HUGE}", HUGE),
    "train.micro_batch_size": ("0", "-1", HUGE),
    "train.num_steps": ("0", "-1", HUGE),
    "train.log_every_steps": ("0", "-5", HUGE),
    "train.eval_samples": ("0", "-1", HUGE),
    "train.eval_every_steps": ("-1", f"-{HUGE}", HUGE),
    "train.checkpoint_every_steps": ("-1", HUGE),
    "train.max_skipped_steps": ("0", "-1", HUGE),
    "train.grad_clip": ("-1", "nan", "inf"),
    "train.spike_sigma": ("-3", "0.5", "nan", "inf"),
    "train.precision": ("fp8", "FP32", "float32", "16"),
    "train.grad_accum_dtype": ("bf16", "fp64", "none"),
    "train.profile_steps": ("[3]", "[0,3]", "[5,4]", "[1,2,3]", f"[1,{HUGE}]"),
    "run.seed": ("-1", HUGE, str(2**63)),
    "run.resume": ("maybe", "true", "AUTO"),
    "run.name": ("a/b", "..", ".", "''", "/", "x" * 300, "'a\\nb'"),
    "data.max_seq_length": ("0", "7", "-1", "100000", HUGE),
    "data.validation_fraction": ("0", "1", "-0.5", "2", "nan", "inf"),
    "data.min_document_characters": ("0", "-3", HUGE),
    "tokenizer.kind": ("sentencepiece", "BPE", "none"),
    "tokenizer.vocab_size": ("0", "-5", HUGE),
    "tokenizer.training_megabytes": ("0", "-1", HUGE),
    "model.num_layers": ("0", "-2", HUGE),
    "model.hidden_size": ("0", "-64", "63", HUGE),
    "model.num_heads": ("0", "-1", "7", HUGE),
    "model.max_positions": ("0", "-1", "4", HUGE),
    "model.dropout": FRACTION,
    "model.initializer_range": POSITIVE,
    "objective.mask_probability": ("0", "1", "-0.1", "nan"),
    "objective.max_predictions": ("0", "-1", "5000", HUGE),
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": ("-0.1", "nan", "inf"),
    "optimizer.beta1": FRACTION,
    "optimizer.beta2": FRACTION,
    "optimizer.beta3": FRACTION,
    "optimizer.eps1": POSITIVE,
    "optimizer.eps2": POSITIVE,
    "optimizer.clip_threshold": POSITIVE,
    "schedule.kind": ("step", "LINEAR", "cosine_"),
    "schedule.warmup_ratio": FRACTION,
    "schedule.min_lr_ratio": FRACTION,
    "zero.stage": ("-1", "4", HUGE),
    "zero.offload": ("nvme", "gpu", "CPU"),
    "launch.num_processes": ("0", "-2", HUGE),
    "launch.timeout_seconds": ("0", "-1", HUGE),
    "launch.rendezvous_timeout_seconds": ("0", "-1", HUGE),
    "tracker.mode": ("on", "disabled", "''"),
}


def out_of_range(rng: random.Random) -> Mistake:
    key = rng.choice(list(OUT_OF_RANGE))
    return Mistake((f"{key}={rng.choice(OUT_OF_RANGE[key])}",), (key, key.rpartition(".")[2]))


def _misspelt(rng: random.Random, word: str) -> str:
    at = rng.randrange(len(word))
    return rng.choice(
        [word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], word[:at] + "z" + word[at:], word + "es", word.upper()]
    )


def misspelt_key(rng: random.Random) -> Mistake:
    part, _, name = rng.choice(list(KEYS)).partition(".")
    key = rng.choice([f"{part}.{_misspelt(rng, name)}", f"{_misspelt(rng, part)}.{name}", name, f"{part}.{name}.more", f"{part}..{name}"])
    if key in KEYS:
        key += "_"
    return Mistake((f"{rng.choice(['', '+', '++'])}{key}={rng.choice(['1', 'true', 'x', '[1]', 'null'])}",), (key, f"{part}.{name}"))


def misspelt_group(rng: random.Random) -> Mistake:
    group = rng.choice(list(SCHEMAS))
    misspelt = _misspelt(rng, group)
    return Mistake((f"{rng.choice(['', '+'])}{misspelt}={rng.choice(list(SCHEMAS[group]))}",), (misspelt,))


def unknown_choice(rng: random.Random) -> Mistake:
    group, choices = rng.choice(list(group_choices().items()))
    name = rng.choice(
        [_misspelt(rng, rng.choice(choices)), rng.choice(STRANGE_TEXT), "3", "[a,b]", "null", "true", "1.5", "{a: 1}", "a/b", "/etc/passwd"]
    )
    return Mistake((f"{'+' if group == 'experiment' else ''}{group}={name if name not in choices else name + '_'}",), (group,))


def strange_value(rng: random.Random) -> Mistake:
    key = rng.choice(
        [key for key, (_, wanted) in KEYS.items() if _kind_of(wanted)[0] in ("int", "float", "bool") and not _kind_of(wanted)[1]]
    )
    value = rng.choice([text for text in STRANGE_TEXT if text.lower() != "nan"])
    return Mistake((*KEYS[key][0], f"{key}={value}"), (key,))


def not_a_setting(rng: random.Random) -> Mistake:
    key = rng.choice(list(KEYS))
    override = rng.choice(
        [key, f"={key}", f"~{key}", "+", "=", "", key.replace(".", " "), f"{key}:3", f"@{key}=1", f"{key}@x=1", f".{key}=1", f"{key}.=1"]
    )
    return Mistake((override,), (override, key, key.partition(".")[0]))


def unreadable_value(rng: random.Random) -> Mistake:
    key = rng.choice(list(KEYS))
    value = rng.choice(
        [
            "[1,2",
            "{a",
            "'x",
            '"x',
            "[a}",
            "a:b:{",
            "1,2",
            "x,y,z",
            "choice(1,2)",
            "range(1,3)",
            "glob(*)",
            "a'b",
            "${",
            "${nowhere}",
            "${a:b}",
            "???",
        ]
    )
    return Mistake((*KEYS[key][0], f"{key}={value}"), (key,))


CONTRADICTIONS = {
    "objective=clm": "objective",
    "model=gpt2_tiny": "objective",
    "model=gpt2_tiny objective=mlm_nsp": "objective",
    "tokenizer.kind=bpe": "tokenizer.kind",
    "model=gpt2_tiny objective=clm tokenizer.kind=wordpiece": "tokenizer.kind",
    "zero=stage0 train.precision=bf16": "train.precision",
    "zero=stage0 train.precision=fp16 train.grad_accum_dtype=model": "train.precision",
    "zero=stage0 zero.offload=cpu": "zero.offload",
    "train.global_batch_size=7 train.micro_batch_size=2": "global_batch_size",
    "train.micro_batch_size=1000": "micro_batch_size",
    "launch.num_processes=7": "7 ranks",
    "zero.extra.stage=3": "zero.extra.stage",
    "zero.extra.overlap_com=true": "zero.extra.overlap_com",
    "zero.extra.overlap_comm.a=1": "zero.extra.overlap_comm",
    "+zero.extra={stage:2}": "zero.extra",
    "data.mixture.a.paths=[x]": "data.mixture",
    "data=mixture data.mixture.a.paths=[x] data.mixture.a.name=y": "data.mixture.a",
    "data=mixture data.mixture.a.weight=2": "data.mixture.a",
    "data=mixture data.mixture.a.paths=x": "data.mixture.a",
    "data=mixture data.mixture.a=5": "data.mixture.a",
    "data=mixture data.mixture.a=[1]": "data.mixture.a",
    "data=mixture data.mixture.a.wait=2 data.mixture.a.paths=[x]": "data.mixture.a",
    "data=mixture data.mixture.\u00e9.paths=[x]": "data.mixture",
    "data=prepared data.path=x data.weights.a=0": "data.weights.a",
    "data=prepared data.path=x data.weights.a=many": "data.weights",
    "data=text optimizer=adamw optimizer.beta3=0.9": "optimizer.beta3",
    "optimizer=sm3 optimizer.beta1=0.9": "optimizer.beta1",
    "objective=clm objective.mask_probability=0.1 model=gpt2_tiny": "objective.mask_probability",
    "tracker=none tracker.project=x": "tracker.project",
    "optimizer.name=lamb": "optimizer.name",
    "data.kind=text": "data.kind",
    "tracker.kind=none": "tracker.kind",
    "+experiment=demo +experiment=bert_8k": "experiment",
    "experiment=": "experiment",
    "hydra.run.dir=x": "hydra.run.dir",
    "hydra/launcher=basic": "hydra/launcher",
    "train=null": "train",
    "+train.a.b.c=1": "train.a",
    "train.num_steps.x=1": "train.num_steps",
}


def contradiction(rng: random.Random) -> Mistake:
    arguments, key = rng.choice(list(CONTRADICTIONS.items()))
    return Mistake(tuple(arguments.split()), (key,))


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


# A folder of the user's own files -------------------------------------------------------------------------------------------------

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


# What a run needs from outside ----------------------------------------------------------------------------------------------------

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


def _outside(arguments: str) -> tuple[str, ...]:
    return tuple(part for argument in arguments.split() for part in (SMALL if argument == "SMALL" else (argument,)))


def missing_outside(rng: random.Random) -> Mistake:
    command = rng.choice(["pretrain", "pretrain.prepare"])
    arguments, name = rng.choice(list((OUTSIDE | (RUN_ALONE if command == "pretrain" else {})).items()))
    return Mistake(_outside(arguments), (name,), command, FILES_OUTSIDE)


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
    return Mistake(_outside(arguments), (name,), "pretrain.prepare", FILES_OUTSIDE)


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


KINDS: tuple[Callable[[random.Random], Mistake], ...] = (
    wrong_type,
    out_of_range,
    misspelt_key,
    misspelt_group,
    unknown_choice,
    strange_value,
    not_a_setting,
    unreadable_value,
    contradiction,
    bad_option,
    bad_file,
    unreadable_file,
    missing_outside,
    bad_prepare,
    bad_sample,
)
