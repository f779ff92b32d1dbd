"""`python -m pretrain.sample RUN "prompt"`: text from a model, to look at. A GPT-2 goes on from the prompt, a BERT fills in its [MASK]s.

Embedding rows that only pad the vocabulary stand for nothing: they are cut off before any probability is taken.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.loading import Loaded, find_model, load_model
from pretrain.user_path import user_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_DESCRIPTION = """\
Look at a model: a GPT-2 goes on from the prompt (an empty one: from the beginning of a text), a BERT says what could stand at each [MASK].

examples:
  python -m pretrain.sample runs/gpt2_small "The moon" --num-samples 3
  python -m pretrain.sample runs/gpt2_small/export "The moon" --temperature 0
  python -m pretrain.sample runs/demo "The [MASK] of the list is returned." --top 10
"""
_OF_KIND = {"causal": ("max_new_tokens", "num_samples", "temperature", "top_k", "top_p", "seed"), "masked": ("top",)}
_KIND_NAMES = {"causal": "a model that continues text", "masked": "a model that fills in masks"}


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: first the temperature, then `top_k`, then `top_p`."""

    temperature: float = 0.8
    """Divides the scores; 0: always the most probable token."""
    top_k: int = 200
    """Only the k most probable tokens; 0: all."""
    top_p: float = 1.0
    """Only the fewest tokens that hold this much of the probability (Holtzman et al., 2020)."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError("the prompt is not valid UTF-8; give plain text") from error
    source = find_model(user_path(options.run))
    loaded = load_model(source, options.device)
    other = next(kind for kind in _OF_KIND if kind != loaded.kind)
    for name in _OF_KIND[other]:
        if getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for {_KIND_NAMES[other]}, but {options.run} is not one; leave it out")
    if loaded.kind == "causal":
        _print_continuations(loaded, options)
    else:
        _print_fillings(loaded, options.prompt, 5 if options.top is None else options.top)
    return 0


def _parser() -> Parser:
    parser = Parser("python -m pretrain.sample", description=_DESCRIPTION)
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, a checkpoint's, or any with a model and tokenizer in Hugging Face format"
    )
    parser.add_argument("prompt", nargs="?", default="", help="the text to go on from or to fill in")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU where there is one")
    causal = parser.add_argument_group("GPT-2")
    causal.add_argument("--max-new-tokens", type=_number(int, 1), metavar="N", help="tokens to add at most (100)")
    causal.add_argument("--num-samples", type=_number(int, 1), metavar="N", help="continuations (1)")
    causal.add_argument("--temperature", type=_number(float, 0), metavar="T", help="0: always the most probable token (0.8)")
    causal.add_argument("--top-k", type=_number(int, 0), metavar="K", help="only the K most probable tokens; 0: all (200)")
    causal.add_argument("--top-p", type=_number(float, 0, 1), metavar="P", help="only the fewest tokens that hold probability P (1)")
    causal.add_argument("--seed", type=_number(int, 0, 2**63 - 1), metavar="N", help="the same seed gives the same text (0)")
    masked = parser.add_argument_group("BERT")
    masked.add_argument("--top", type=_number(int, 1), metavar="N", help="candidates for each [MASK] (5)")
    return parser


def _number(kind: type, least: float, most: float = float("inf")) -> Any:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most or value == float("inf"):
            bounds = f"{least} or more" if most == float("inf") else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not valid; give a {'whole number' if kind is int else 'number'}, {bounds}")
        return value

    return parse


# GPT-2 ----------------------------------------------------------------------------------------------------------------------------


def _print_continuations(loaded: Loaded, options: argparse.Namespace) -> None:
    import torch

    def given(name: str, default: Any) -> Any:
        return default if getattr(options, name) is None else getattr(options, name)

    sampling = Sampling(**{name: given(name, getattr(Sampling, name)) for name in ("temperature", "top_k", "top_p")})
    generator = torch.Generator().manual_seed(given("seed", 0))
    prompt = _prompt_ids(loaded, options.prompt)
    for number in range(given("num_samples", 1)):
        if number:
            print("-" * 40)
        print(options.prompt, end="", flush=True)
        for text in _decoded(loaded, continue_tokens(loaded, prompt, sampling, generator), given("max_new_tokens", 100)):
            print(text, end="", flush=True)
        print()


def _prompt_ids(loaded: Loaded, prompt: str) -> list[int]:
    ids = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else [_end_of_text(loaded)]
    if len(ids) > loaded.window:
        print(f"the prompt has {len(ids)} tokens; the model sees the last {loaded.window} of them", file=sys.stderr)
    return ids


def _end_of_text(loaded: Loaded) -> int:
    tokenizer = loaded.tokenizer
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise UserError("this tokenizer has no token for the beginning of a text; give a prompt")
    return found


def continue_tokens(loaded: Loaded, prompt: list[int], sampling: Sampling, generator: "torch.Generator") -> Iterator[int]:
    """Token after token, without end. The model sees as many of the last tokens as its window takes."""
    import torch

    tokens = torch.tensor([prompt], device=loaded.model.device)  # (1, length)
    past = None
    while True:
        room = tokens.size(1) < loaded.window
        seen = tokens[:, -loaded.window :] if past is None else tokens[:, -1:]
        with torch.inference_mode():
            found = loaded.model(input_ids=seen, past_key_values=past, use_cache=room)
        past = found.past_key_values if room else None
        chosen = draw(loaded.scores(found)[0, -1].cpu(), sampling, generator)
        yield chosen
        tokens = torch.cat((tokens, tokens.new_tensor([[chosen]])), dim=1)


def draw(scores: "Tensor", sampling: Sampling, generator: "torch.Generator") -> int:
    """One token from scores (vocabulary,)."""
    import torch

    if sampling.temperature == 0:
        return int(scores.argmax())
    scores = (scores.double() - scores.max()) / sampling.temperature
    ordered, ids = scores.sort(descending=True, stable=True)
    probabilities = ordered[: sampling.top_k or None].softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # of the more probable ones: the first token always stays
    kept = probabilities.where((before < sampling.top_p) | (before == 0), 0.0)
    return int(ids[torch.multinomial(kept, 1, generator=generator)])


def _decoded(loaded: Loaded, tokens: Iterator[int], most: int) -> Iterator[str]:
    """The text of up to `most` tokens or of those before the end of the text, as soon as its characters are whole."""
    ids: list[int] = []
    given = 0
    for token in tokens:
        ended = token == loaded.tokenizer.eos_token_id
        ids += [] if ended else [token]
        ended = ended or len(ids) == most
        text = loaded.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if ended or not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[given:]
            given = len(text)
        if ended:
            return


# BERT -----------------------------------------------------------------------------------------------------------------------------


def _print_fillings(loaded: Loaded, prompt: str, top: int) -> None:
    ids = _masked_ids(loaded, prompt)
    places = [place for place, token in enumerate(ids) if token == loaded.tokenizer.mask_token_id]
    for number, (place, candidates) in enumerate(zip(places, fill(loaded, ids, places, top), strict=True), start=1):
        print(f"{loaded.tokenizer.mask_token} {number}" if len(places) > 1 else loaded.tokenizer.mask_token)
        for token, probability in candidates:
            print(f"  {probability:.4f}  {loaded.tokenizer.convert_ids_to_tokens(token)}")
        ids[place] = candidates[0][0]
    print(loaded.tokenizer.decode(ids, skip_special_tokens=True))


def _masked_ids(loaded: Loaded, prompt: str) -> list[int]:
    mask = loaded.tokenizer.mask_token
    ids = loaded.tokenizer(prompt)["input_ids"]
    if loaded.tokenizer.mask_token_id not in ids:
        raise UserError(f"the prompt has no {mask}; write {mask} for each token that the model is to fill in")
    if len(ids) > loaded.positions:
        raise UserError(f"the prompt has {len(ids)} tokens, more than the model's {loaded.positions} positions; give a shorter one")
    return ids


def fill(loaded: Loaded, ids: list[int], places: list[int], top: int) -> list[list[tuple[int, float]]]:
    """For each place the most probable tokens with their probabilities, each place for itself."""
    import torch

    with torch.inference_mode():
        found = loaded.model(input_ids=torch.tensor([ids], device=loaded.model.device))
    probabilities = loaded.scores(found)[0, places].softmax(-1).cpu()  # (places, vocabulary)
    values, tokens = probabilities.topk(min(top, probabilities.size(-1)))
    return [list(zip(row.tolist(), value.tolist(), strict=True)) for row, value in zip(tokens, values, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
