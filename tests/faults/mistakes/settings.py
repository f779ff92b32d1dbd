"""Mistakes in single settings and in how they go together, drawn from the schema."""

import random
from typing import Any

from pretrain.config.location import group_choices
from pretrain.config.registry import SCHEMAS, known_keys
from tests.faults.mistakes.mistake import HUGE, Mistake

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
    "any": ("abc", "1.5", "[1,2]", "{a: 1}", "null", "true", "''"),  # train.micro_batch_size: a number or a word
}
_NAMES = {int: "int", float: "float", bool: "bool", str: "str"}


def _kind_of(wanted: object) -> tuple[str, bool]:
    """The entry of `WRONG_VALUES`, and whether null is right."""
    text = str(wanted)
    if text.startswith(("list", "dict")):
        return text[:4], False
    if wanted is Any:  # a positive integer, or a word (train.micro_batch_size)
        return "int", False
    optional = "None" in text
    return next((name for cls, name in _NAMES.items() if wanted is cls or (optional and name in text)), "any"), optional


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
    "train.memory_snapshot_steps": ("[3]", "[0,3]", "[5,4]", "[1,2,3]", f"[1,{HUGE}]"),
    "train.device_peak_tflops": POSITIVE,
    "run.seed": ("-1", HUGE, str(2**63)),
    "run.resume": ("maybe", "true", "AUTO"),
    "run.name": ("a/b", "..", ".", "''", "/", "x" * 300, "'a\\nb'"),
    "data.max_seq_length": ("0", "7", "-1", "100000", HUGE),
    "data.validation_fraction": ("0", "1", "-0.5", "2", "nan", "inf"),
    "data.min_document_characters": ("0", "-3", HUGE),
    "data.documents": ("page", "FILE", "''"),
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
    "optimizer.implementation": ("cuda", "TRITON", ""),
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
