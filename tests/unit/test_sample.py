"""What `python -m pretrain.sample` says, on tiny models whose answers are known."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.config.compose import compose
from pretrain.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from pretrain.loading import load_model
from pretrain.model.build import Vocabulary, build_transformer
from pretrain.sample import Sampling, continue_tokens, draw, main
from tests import made_runs

TEXT = ["the cat sees the moon and the moon sees the cat ", "a dog runs to the sea and the sea is blue "] * 5
POSITIONS = 16
SIZE = ("model.num_layers=2", "model.hidden_size=32", "model.num_heads=2", f"model.max_positions={POSITIONS}", "data.max_seq_length=16")
GPT2 = ("model=gpt2_tiny", "objective=clm", "tokenizer.vocab_size=290", *SIZE)
BERT = ("model=bert_tiny", "tokenizer.vocab_size=60", *SIZE)


def make_model(folder: Path, settings: tuple[str, ...], rig: Callable = lambda model, tokenizer: None) -> Path:
    """A model in Hugging Face format with random weights, changed by `rig`."""
    config = compose(list(settings))
    kind = "bpe" if config.model.family == "gpt2" else "wordpiece"
    save_tokenizer(build_tokenizer(config.tokenizer, kind, lambda: iter(TEXT)), folder)
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(0)
    special = {"end_of_text_id": tokenizer.token_to_id("<|endoftext|>")} if kind == "bpe" else {"pad_id": 0}
    model = build_transformer(config, Vocabulary(tokenizer.get_vocab_size(), **special))
    assert model.config.vocab_size > tokenizer.get_vocab_size()  # there are padded rows
    with torch.no_grad():
        rig(model, tokenizer)
    model.save_pretrained(folder)
    return folder


def always(token: str) -> Callable:
    """GPT-2 that gives this token by far the highest score of the real ones, and padded rows a still higher one."""

    def rig(model, tokenizer) -> None:
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.transformer.wte.weight[tokenizer.token_to_id(token)] = 1.0
        model.transformer.wte.weight[tokenizer.get_vocab_size() :] = 10.0

    return rig


def biased(**bias: float) -> Callable:
    """BERT whose scores are these, else 0, and in the padded rows enormous."""

    def rig(model, tokenizer) -> None:
        predictions = model.cls.predictions
        predictions.transform.LayerNorm.weight.zero_()
        predictions.bias.zero_()
        predictions.decoder.bias = predictions.bias
        predictions.bias[tokenizer.get_vocab_size() :] = 1e4
        for token, score in bias.items():
            predictions.bias[tokenizer.token_to_id(token)] = score

    return rig


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "gpt2", GPT2)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`say(folder, prompt, "--top", "3")`: what the command prints."""

    def run(*arguments: object) -> str:
        code = main([*map(str, arguments)])
        output, errors = capsys.readouterr()
        assert (code, errors) == (0, "")
        return output

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one `error:` line of a command that ends with exit code 2."""

    def run(*arguments: object) -> str:
        code = main([*map(str, arguments)])
        output, errors = capsys.readouterr()
        assert (code, output) == (2, "") and re.fullmatch(r"error: [^\n]+\n", errors), errors
        return errors

    return run


# GPT-2 ----------------------------------------------------------------------------------------------------------------------------


def test_greedy_is_the_argmax_of_plain_forwards_beyond_the_last_position(gpt2: Path) -> None:
    """The cache, and the window that slides once the positions are used up, change nothing."""
    loaded = load_model(gpt2, "cpu")
    prompt = loaded.tokenizer("the cat")["input_ids"]
    wanted = list(prompt)
    for _ in range(2 * POSITIONS):
        with torch.no_grad():
            logits = loaded.model(torch.tensor([wanted[-POSITIONS:]]), use_cache=False).logits
        wanted.append(int(logits[0, -1, : len(loaded.tokenizer)].argmax()))
    found = continue_tokens(loaded, prompt, Sampling(temperature=0), torch.Generator())
    assert [*prompt, *islice(found, 2 * POSITIONS)] == wanted


def test_a_runs_model_sees_no_more_than_it_has_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_runs.make_run(tmp_path / "run", *made_runs.GPT2, steps=(2,))
    loaded = load_model(run, "cpu")
    prompt = [*range(40)]
    seen = next(continue_tokens(loaded, prompt, Sampling(temperature=0), torch.Generator()))
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompt[-16:]])).logits
    assert (loaded.positions, loaded.window) == (32, 16) and seen == int(logits[0, -1, : len(loaded.tokenizer)].argmax())
    assert main([str(run), "the cat " * 40, "--max-new-tokens", "1"]) == 0
    assert "the model sees the last 16 of them" in capsys.readouterr().err


@pytest.mark.parametrize("temperature", ["0", "0.5"])
def test_the_rigged_token_is_said_and_padding_never(tmp_path: Path, say, temperature: str) -> None:
    folder = make_model(tmp_path / "model", GPT2, always("Ġmoon"))
    assert say(folder, "the cat", "--temperature", temperature, "--max-new-tokens", 3) == "the cat moon moon moon\n"


def test_hot_sampling_reaches_every_real_token_and_no_padded_one(gpt2: Path) -> None:
    loaded = load_model(gpt2, "cpu")
    vocabulary = len(loaded.tokenizer)
    with torch.no_grad():
        loaded.model.transformer.wte.weight[vocabulary:] *= 100
    tokens = continue_tokens(loaded, [0], Sampling(temperature=1e6, top_k=0), torch.Generator().manual_seed(0))
    seen = set(islice(tokens, 1500))
    assert max(seen) < vocabulary and len(seen) > 0.9 * vocabulary


def test_the_end_of_a_text_ends_it_and_begins_one(tmp_path: Path, say) -> None:
    folder = make_model(tmp_path / "model", GPT2, always("<|endoftext|>"))
    assert say(folder, "the cat") == "the cat\n"
    assert say(folder) == "\n"
    loaded = load_model(folder, "cpu")
    with torch.no_grad():
        seen = loaded.model(torch.tensor([[loaded.tokenizer.eos_token_id]])).logits
    assert int(seen[0, -1, : len(loaded.tokenizer)].argmax()) == loaded.tokenizer.eos_token_id


def test_a_seed_gives_the_same_text_and_another_seed_another(gpt2: Path, say) -> None:
    settings = ("the", "--max-new-tokens", 20, "--temperature", 2)
    texts = [say(gpt2, *settings, "--seed", seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    several = say(gpt2, *settings, "--seed", 1, "--num-samples", 3).split("-" * 40 + "\n")
    assert len(set(several)) == 3 and several[0] == texts[0]


def test_the_text_is_that_of_all_tokens_together(gpt2: Path, say) -> None:
    """Random bytes: characters that are split over tokens arrive whole."""
    loaded = load_model(gpt2, "cpu")
    sampling = Sampling(temperature=5.0, top_k=0)
    tokens = list(islice(continue_tokens(loaded, loaded.tokenizer("the")["input_ids"], sampling, torch.Generator().manual_seed(0)), 60))
    assert loaded.tokenizer.eos_token_id not in tokens
    printed = say(gpt2, "the", "--max-new-tokens", 60, "--temperature", 5, "--top-k", 0)
    assert printed == f"the{loaded.tokenizer.decode(tokens)}\n"


def test_a_long_prompt_is_cut_from_the_left_with_a_notice(gpt2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tail = " the cat" * (POSITIONS // 2)
    outputs = []
    for prompt in (f" dog{tail}", f" sea{tail}"):
        assert main([str(gpt2), prompt, "--temperature", "0", "--max-new-tokens", "5"]) == 0
        output, errors = capsys.readouterr()
        assert re.fullmatch(rf"the prompt has \d+ tokens; the model sees the last {POSITIONS} of them\n", errors)
        outputs.append(output.removeprefix(prompt))
    assert outputs[0] == outputs[1]


def frequencies(sampling: Sampling, scores: torch.Tensor, draws: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.bincount(torch.tensor([draw(scores, sampling, generator) for _ in range(draws)]), minlength=scores.numel()) / draws


DRAWS = {
    "as they are": (Sampling(1.0, 0, 1.0), [0.1, 0.5, 0.15, 0.25]),
    "half the temperature squares them": (Sampling(0.5, 0, 1.0), [0.01 / 0.345, 0.25 / 0.345, 0.0225 / 0.345, 0.0625 / 0.345]),
    "the two best": (Sampling(1.0, 2, 1.0), [0, 2 / 3, 0, 1 / 3]),
    "those that hold 0.6": (Sampling(1.0, 0, 0.6), [0, 2 / 3, 0, 1 / 3]),
    "top_p of the top_k": (Sampling(1.0, 2, 0.6), [0, 1, 0, 0]),
    "top_p 0 leaves the best": (Sampling(1.0, 0, 0.0), [0, 1, 0, 0]),
    "temperature 0": (Sampling(0.0, 0, 1.0), [0, 1, 0, 0]),
    "almost 0": (Sampling(1e-60, 0, 1.0), [0, 1, 0, 0]),
}


@pytest.mark.parametrize("case", DRAWS)
def test_tokens_are_drawn_with_their_probabilities(case: str) -> None:
    sampling, shares = DRAWS[case]
    wanted = torch.tensor(shares, dtype=torch.float32)
    found = frequencies(sampling, torch.tensor([0.1, 0.5, 0.15, 0.25]).log())
    assert torch.allclose(found, wanted, atol=0.032)  # 4 standard deviations of a share among 4000 draws
    assert torch.equal(found == 0, wanted == 0)


# BERT -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["mlm", "mlm_nsp"])
def test_each_mask_gets_its_candidates_and_the_sentence_is_filled(tmp_path: Path, say, objective: str) -> None:
    folder = make_model(tmp_path / "model", (*BERT, f"objective={objective}"), biased(moon=12.0, cat=11.0))
    lines = say(folder, "the [MASK] sees the [MASK]", "--top", 2).splitlines()
    assert lines[0] == "[MASK] 1" and lines[3] == "[MASK] 2" and lines[-1] == "the moon sees the moon"
    assert len(lines) == 7 and lines[1].split()[1] == "moon" and lines[2].split()[1] == "cat"
    probability, next_best = (float(line.split()[0]) for line in lines[1:3])
    assert probability / next_best == pytest.approx(2.71828, rel=1e-3) and 0.99 < probability + next_best < 1


def test_a_prompt_that_bert_cannot_fill_is_refused(tmp_path: Path, refused) -> None:
    folder = make_model(tmp_path / "model", (*BERT, "objective=mlm"))
    assert "the prompt has no [MASK]; write [MASK]" in refused(folder, "the cat")
    assert f"more than the model's {POSITIONS} positions" in refused(folder, "[MASK] the cat sees" * 10)
    assert "--seed is for a model that continues text" in refused(folder, "[MASK]", "--seed", 1)


# What cannot be sampled from ------------------------------------------------------------------------------------------------------


def test_folders_that_hold_no_model_are_refused(tmp_path: Path, gpt2: Path, refused) -> None:
    assert "there is no folder" in refused(tmp_path / "nowhere", "x")
    assert "holds neither a run nor a model" in refused(tmp_path, "x")
    (tmp_path / "config.yaml").write_text("")
    assert "has no checkpoint yet" in refused(tmp_path, "x")
    (tmp_path / "config.json").write_text("{")
    assert "holds no whole model in Hugging Face format" in refused(tmp_path, "x")
    assert "--top is for a model that fills in masks" in refused(gpt2, "x", "--top", 3)


def test_pickled_weights_are_not_read(tmp_path: Path, gpt2: Path, refused) -> None:
    folder = Path(shutil.copytree(gpt2, tmp_path / "pickled"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "holds no whole model in Hugging Face format with its weights in safetensors" in refused(folder, "x")


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("--top-k=-1", "give a whole number, 0 or more"),
        ("--top-p=1.5", "give a number, from 0 to 1"),
        ("--temperature=nan", "give a number, 0 or more"),
        ("--max-new-tokens=many", "give a whole number, 1 or more"),
        ("--device=abacus", "--device abacus cannot be used here .*; give cpu or auto"),
        ("--nonsense", "see python -m pretrain.sample --help"),
    ],
)
def test_options_that_cannot_be_are_refused(gpt2: Path, refused, option: str, mend: str) -> None:
    assert re.search(mend, refused(gpt2, "x", option))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pretrain.sample import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "omegaconf", "numpy"} & set(done.stdout.splitlines()[-1].split())
