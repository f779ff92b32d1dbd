"""`python -m pretrain.evaluate` on tiny models: the figures are those of plain forwards, token by token."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.config.compose import compose
from pretrain.data.prepare import prepare
from pretrain.evaluate import masked
from pretrain.evaluate.__main__ import main
from pretrain.evaluate.causal import perplexities, windows
from pretrain.export import main as export
from tests.made_runs import BERT, GPT2, make_run

POSITIONS = 32
DOCUMENTS = [
    "the cat sees the moon. the moon sees the cat.",
    "a dog",  # shorter than any window
    "the sea is blue and the moon is blue " * 5 + "\nand the cat is \N{SNOWMAN} too",  # longer than the model's positions
    "x",
    "what looks like <|endoftext|> or [MASK] is text",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs, the GPT-2 exported as well, and texts."""
    found = tmp_path_factory.mktemp("evaluate")
    make_run(found / "runs" / "bert", *BERT)
    make_run(found / "runs" / "gpt2", *GPT2)
    assert export([str(found / "runs" / "gpt2"), str(found / "gpt2")]) == 0
    records = [{"text": text} for text in (*DOCUMENTS[:2], "", "  \n ", *DOCUMENTS[2:])]  # two of them empty
    (found / "long.txt").write_text("\n\n".join(f"the cat sees {number} dogs.\nthe moon is blue." for number in range(200)))
    (found / "text.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return found


@pytest.fixture
def evaluated(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`evaluated("runs/bert", "data.paths=[text.jsonl]")`: the figures."""
    monkeypatch.chdir(folder)

    def run(model: str, *arguments: object) -> dict[str, Any]:
        cache = [] if not arguments else ["data.cache_dir=cache"]
        code = main([model, *map(str, arguments), *cache, "--format", "json"])
        output, errors = capsys.readouterr()
        assert (code, errors) == (0, "")
        return json.loads(output)

    return run


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The one `error:` line of a command that ends with exit code 2."""
    monkeypatch.chdir(folder)

    def run(arguments: str) -> str:
        code = main(arguments.split())
        output, errors = capsys.readouterr()
        assert (code, output) == (2, "") and re.fullmatch(r"error: [^\n]+\n", errors), errors
        return errors

    return run


# GPT-2 ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Any, Any]:
    """transformers' own model and tokenizer."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(folder / "gpt2").eval(), AutoTokenizer.from_pretrained(
        folder / "gpt2", split_special_tokens=True
    )


def slowly(model: Any, tokens: list[int], length: int, stride: int) -> list[float]:
    """-log p of tokens[1:], each by a forward pass of its own over what it may see: the first `length` targets all that stands before them,
    then `stride` at a time what a window that ends behind the last of them still holds."""
    found = []
    for place in range(1, len(tokens)):
        end = place if place <= length else length + stride * math.ceil((place - length) / stride)
        first = 0 if place <= length else min(end, len(tokens) - 1) - length
        with torch.no_grad():
            scores = model(torch.tensor([tokens[first:place]])).logits[0, -1].double()
        found.append(-float(scores.log_softmax(-1)[tokens[place]]))
    return found


@pytest.mark.parametrize(("length", "stride"), [(32, 1), (32, 32), (11, 3)])
def test_perplexity_is_that_of_each_token_after_those_it_may_see(evaluated, plain, length: int, stride: int) -> None:
    model, tokenizer = plain
    front = tokenizer.bos_token_id
    ids = [tokenizer(text)["input_ids"] for text in DOCUMENTS]
    nats = [loss for text in ids for loss in slowly(model, [front, *text], length, stride)]
    found = evaluated("runs/gpt2", "data.paths=[text.jsonl]", "--max-length", length, "--stride", stride)
    assert found["tokens"] == len(nats) == sum(map(len, ids)) and front not in ids[-1]
    assert found["nats"] == pytest.approx(sum(nats), rel=1e-6)
    assert found["documents"] == len(DOCUMENTS) and (found["max_length"], found["stride"]) == (length, stride)


def test_documents_in_one_stream_see_those_before_them(evaluated, plain) -> None:
    model, tokenizer = plain
    front = tokenizer.bos_token_id
    tokens = [token for text in DOCUMENTS for token in (front, *tokenizer(text)["input_ids"])]
    each = slowly(model, tokens, POSITIONS, POSITIONS // 2)
    wanted = [loss for token, loss in zip(tokens[1:], each, strict=True) if token != front]
    found = evaluated("gpt2", "data.paths=[text.jsonl]", "--concatenate")
    assert found["tokens"] == len(wanted) and found["nats"] == pytest.approx(sum(wanted), rel=1e-6)
    assert (found["max_length"], found["stride"]) == (POSITIONS, POSITIONS // 2)


def test_a_file_as_one_document_is_scored_with_all_its_blank_lines(evaluated, plain, folder: Path) -> None:
    model, tokenizer = plain
    text = " \n = the moon = \n \n the cat sees the moon . \n\n a dog \n \n = the sea = \n \n the sea is blue . \n \n" * 2
    (folder / "wiki.tokens").write_text(text)
    ids = tokenizer(text)["input_ids"]
    found = evaluated("gpt2", "data=text", "data.paths=[wiki.tokens]", "data.documents=file", "--stride", 8)
    assert (found["documents"], found["tokens"], found["bytes"]) == (1, len(ids), len(text)) and len(ids) > 2 * POSITIONS
    assert found["nats"] == pytest.approx(sum(slowly(model, [tokenizer.bos_token_id, *ids], POSITIONS, 8)), rel=1e-6)
    assert evaluated("gpt2", "data.paths=[wiki.tokens]", "--stride", 8)["documents"] == 10


@pytest.mark.parametrize(("length", "stride"), [(8, 8), (8, 1), (8, 3), (100, 50), (1, 1)])
def test_each_label_occurs_once_with_enough_before_it(length: int, stride: int) -> None:
    tokens = list(range(50))
    found = list(windows(tokens, tokens, length, stride))
    assert [label for _, labels in found for label in labels if label != -100] == tokens[1:]
    for seen, labels in found:
        assert len(seen) == len(labels) <= length
        for place, label in enumerate(labels):
            assert label in (-100, seen[place] + 1)
            assert label == -100 or place + 1 >= min(label, length - stride + 1)
    assert list(windows([7], [7], 8, 4)) == []


def test_figures_are_per_token_word_and_byte(evaluated) -> None:
    found = evaluated("gpt2", "data.paths=[text.jsonl]")
    words, num_bytes = sum(len(text.split()) for text in DOCUMENTS), sum(len(text.encode()) for text in DOCUMENTS)
    assert (found["words"], found["bytes"]) == (words, num_bytes) and num_bytes == sum(map(len, DOCUMENTS)) + 2
    nats = found["nats"]
    wanted = perplexities(nats, found["tokens"], words, num_bytes)
    assert {name: found[name] for name in wanted} == wanted
    assert wanted["perplexity"] == math.exp(nats / found["tokens"]) and wanted["word_perplexity"] == math.exp(nats / words)
    assert wanted["byte_perplexity"] == math.exp(nats / num_bytes)
    assert wanted["bits_per_byte"] == pytest.approx(math.log2(wanted["byte_perplexity"]), rel=1e-12)
    assert perplexities(1e6, 10, 1, 1000)["word_perplexity"] == math.exp(700)  # a text without a space


def test_of_no_word_there_is_no_perplexity(
    evaluated, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.evaluate.causal.documents", lambda config, loaded: ["\n\n \n"])
    found = evaluated("gpt2", "data.paths=[text.jsonl]")
    assert found["words"] == 0 and found["word_perplexity"] is None and found["perplexity"] > 1 and found["bits_per_byte"] > 0
    assert main(["gpt2", "data.paths=[text.jsonl]", "data.cache_dir=cache"]) == 0
    assert " per token, - per word, " in capsys.readouterr().out
    assert perplexities(1.0, 2, 1, 0)["byte_perplexity"] is perplexities(1.0, 2, 1, 0)["bits_per_byte"] is None


@pytest.mark.parametrize("option", [[], ["--concatenate"]])
def test_a_text_without_a_token_is_refused(refused, monkeypatch: pytest.MonkeyPatch, option: list[str]) -> None:
    monkeypatch.setattr("pretrain.evaluate.causal.documents", lambda config, loaded: ["", ""])
    assert "there is no token to score in data.paths=[text.jsonl]; give" in refused(" ".join(["gpt2", "data.paths=[text.jsonl]", *option]))


def test_run_checkpoint_export_and_hub_are_one_model(evaluated, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: str(folder / "gpt2"))
    names = ("runs/gpt2", "runs/gpt2/checkpoints/step_00000004", "gpt2", "somebody/gpt2")
    same = ("data.paths=[text.jsonl]", "--max-length", POSITIONS)
    assert len({evaluated(name, *same)["nats"] for name in names}) == 1
    assert evaluated("runs/gpt2/checkpoints/step_00000002", *same)["nats"] != evaluated("gpt2", *same)["nats"]


@pytest.mark.parametrize("model", ["runs/gpt2", "runs/gpt2/checkpoints/step_00000004"])
def test_a_window_is_as_long_as_the_run_has_trained(evaluated, capsys: pytest.CaptureFixture[str], model: str) -> None:
    text = ("data.paths=[text.jsonl]", "data.cache_dir=cache")
    found = evaluated(model, *text)
    assert (found["max_length"], found["stride"], found["trained_length"]) == (16, 8, 16)
    assert main([model, *text]) == 0 and "not trained" not in capsys.readouterr().out
    assert main([model, *text, "--max-length", "17"]) == 0
    assert "note  positions from 16 on were not trained by the run\n" in capsys.readouterr().out


def test_a_window_of_another_model_has_all_its_positions(evaluated) -> None:
    found = evaluated("gpt2", "data.paths=[text.jsonl]")
    assert (found["max_length"], found["trained_length"]) == (POSITIONS, None)


def test_lines_say_how_it_was_measured(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert main(["gpt2", "data=text", "data.paths=[text.jsonl]", "data.cache_dir=cache"]) == 0
    said = capsys.readouterr().out
    assert "windows  32 tokens, stride 16; each document for itself, <|endoftext|> in front of each and not scored\n" in said
    assert re.search(r"perplexity  \d.* per token, \d.* per word, \d.* per byte\n", said)


# Text ahead -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "settings"), [("gpt2", GPT2), ("bert", BERT)])
def test_a_prepared_folder_stands_for_its_validation_text(evaluated, folder: Path, family: str, settings: tuple[str, ...]) -> None:
    (folder / "train.txt").write_text("the sea is blue.\n\n" * 3)
    sized = [setting for setting in settings if not setting.startswith("tokenizer.")]
    paths = ["data=text", "data.paths=[train.txt]", "data.valid_paths=[long.txt]", "data.cache_dir=cache"]
    config = compose([*sized, *paths, f"tokenizer.path=runs/{family}/tokenizer", "tokenizer.vocab_size=null"])
    prepare(config, output=folder / f"prepared_{family}", progress=False)
    ahead = evaluated(f"runs/{family}", "data=prepared", f"data.path=prepared_{family}")
    plain = evaluated(f"runs/{family}", "data.paths=[long.txt]")
    assert ahead.pop("text") != plain.pop("text") and ahead == plain


# BERT: against a run's own scores in tests/distributed/test_evaluation.py ---------------------------------------------------------


def test_masks_follow_the_run_unless_they_are_given(evaluated) -> None:
    text = ("data.paths=[long.txt]",)
    pairs = evaluated("runs/bert", *text)
    assert (pairs["objective"], pairs["max_seq_length"], pairs["mask_probability"]) == ("mlm_nsp", 16, 0.15)
    assert 0 <= pairs["mlm_accuracy"] < 0.2 and 0.2 < pairs["nsp_accuracy"] < 0.8
    assert pairs["mlm_loss"] == pytest.approx(math.log(64), abs=1) and pairs["loss"] > pairs["mlm_loss"]
    assert evaluated("runs/bert", *text) == pairs
    full = evaluated("runs/bert", *text, "objective=mlm", "data.max_seq_length=32", "objective.mask_probability=0.3")
    assert full["max_seq_length"] == 32 and full["mask_probability"] == 0.3 and "nsp_accuracy" not in full
    assert full["loss"] == full["mlm_loss"] != pairs["mlm_loss"]


def test_a_figure_that_is_not_defined_is_null(evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token became [MASK]: JSON has no word for a mean of none."""
    real = masked.scores
    monkeypatch.setattr(masked, "scores", lambda totals: real(totals | {"mask_token_count": 0.0}))
    found = evaluated("runs/bert", "data.paths=[long.txt]")
    assert found["mask_token_loss"] is None and found["mlm_loss"] > 0


def test_every_source_of_a_mixture_is_taken_once_whatever_its_weight(evaluated, folder: Path) -> None:
    (folder / "short.txt").write_text("\n\n".join(f"the dog hears {number} birds.\nthe sea is red." for number in range(9)))
    long, short = (evaluated("runs/bert", f"data.paths=[{name}.txt]") for name in ("long", "short"))
    mixture = ("data.mixture.long.paths=[long.txt]", "data.mixture.short.paths=[short.txt]")
    found, weighted = (evaluated("runs/bert", *mixture, *weight) for weight in ((), ("data.mixture.long.weight=3",)))
    assert found["samples"] == long["samples"] + short["samples"] > 20 * short["samples"]
    shares = [part["samples"] / found["samples"] for part in (long, short)]
    assert found["nsp_accuracy"] == pytest.approx(shares[0] * long["nsp_accuracy"] + shares[1] * short["nsp_accuracy"], rel=1e-6)
    assert found.pop("text") != weighted.pop("text") and found == weighted


# Mistakes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ("", "RUN, key=value; see python -m pretrain.evaluate --help"),
        ("no.where data.paths=[text.jsonl]", "no.where is no folder here and cannot be had from the hub"),
        ("data.paths=[text.jsonl]", "there is no folder data.paths="),
        ("gpt2", "there is no text to evaluate on; give data.paths"),
        ("gpt2 data=text", "data=text has no text to read; add data.paths"),
        ("gpt2 data.paths=[nowhere.txt]", "nowhere.txt does not exist"),
        ("gpt2 data.paths=[text.jsonl] data.text_field=body", "records have no text in the field asked for; they have text"),
        ("gpt2 data=nothing", "data=nothing"),
        ("gpt2 data.paths=[text.jsonl] train.num_steps=3", "train.num_steps has no effect on an evaluation"),
        ("gpt2 data.paths=[text.jsonl] data.deduplicate=true", "data.deduplicate has no effect here"),
        ("gpt2 data.paths=[text.jsonl] data.max_seq_length=8", "is for a BERT, but gpt2 continues text; give --max-length"),
        ("gpt2 data.paths=[text.jsonl] --max-length 33", "more than the model's 32 positions; give 32 or less"),
        ("gpt2 data.paths=[text.jsonl] --max-length 8 --stride 9", "tokens would be left out; give 8 or less"),
        ("endless data.paths=[text.jsonl]", "the model in endless states no max_position_embeddings"),
        ("gpt2 data.paths=[text.jsonl] --stride 0", "give a whole number, 1 or more"),
        ("gpt2 data.paths=[text.jsonl] --device abacus", "give cpu or auto"),
        ("runs/bert data.max_seq_length=8", "own validation text as the run does; name one too"),
        ("runs/bert data.paths=[text.jsonl] --stride 4", "--stride is for a model that continues text, but runs/bert is not one"),
        ("runs/bert data.paths=[text.jsonl] data.max_seq_length=33", "data.max_seq_length=33 is more than model.max_positions=32"),
        ("runs/bert data.paths=[empty.txt]", "data.paths holds no text"),
        ("gpt2 data.paths=[empty.txt]", "holds no document"),
        ("runs/bert data.paths=[text.jsonl] objective=clm", "objective=clm does not train"),
        ("gpt2 data=prepared data.path=no.where", "data.path=no.where is not a folder"),
        ("gpt2 data=prepared data.path=runs", "is not a whole prepared corpus"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, refused, arguments: str, mend: str) -> None:
    (folder / "empty.txt").touch()
    (folder / "endless").mkdir(exist_ok=True)
    (folder / "endless" / "config.json").write_text('{"model_type": "bloom", "architectures": ["BloomForCausalLM"]}')
    assert mend in refused(arguments)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pretrain.evaluate.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "omegaconf", "numpy"} & set(done.stdout.splitlines()[-1].split())
    assert "of a prepared folder (data=prepared) its validation split alone" in done.stdout and "as in training" not in done.stdout
