"""`python -m pretrain.evaluate RUN data=...`: perplexity of a GPT-2, loss and accuracy of a BERT, on any text.

Not what a run does while it trains, which is `pretrain/validation.py`.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.loading import find_model_or_download, load_model
from pretrain.plain_json import without_nan

if TYPE_CHECKING:
    from pretrain.evaluate.subject import Subject
    from pretrain.evaluate.table import Result

_DESCRIPTION = """\
Measure how well a model predicts a text: the perplexity of a GPT-2 per token, word and byte; loss and accuracy of a BERT at masked
tokens. All of the text that is given is taken, every source of a mixture once whatever its weight, but
of a prepared folder (data=prepared) its validation split alone; without any text, a run is measured on its own validation text.

examples:
  python -m pretrain.evaluate runs/gpt2_small 'data.paths=[wiki.test.tokens]' data.documents=file --stride 512    a file is one text
  python -m pretrain.evaluate openai-community/gpt2 'data.paths=[stories/]' --concatenate --format json    blank lines part documents
  python -m pretrain.evaluate runs/bert_mini data=text 'data.paths=[books/]'
  python -m pretrain.evaluate runs/bert_mini data=stdlib data.max_seq_length=512
  python -m pretrain.evaluate runs/bert_mini
"""
_OF_CAUSAL = ("stride", "max_length", "concatenate")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    folder = find_model_or_download(options.run)
    from pretrain.evaluate.subject import Subject, run_of
    from pretrain.evaluate.text import check_overrides

    run = run_of(folder)
    check_overrides(options.overrides, run is not None)
    result = _evaluate(Subject(options.run, load_model(folder, options.device), run), options)
    print(json.dumps(without_nan(result.as_dict()), indent=2, allow_nan=False) if options.format == "json" else result.as_table())
    return 0


def _evaluate(subject: "Subject", options: argparse.Namespace) -> "Result":
    if subject.loaded.kind == "causal":
        from pretrain.evaluate.causal import evaluate

        return evaluate(subject, options.overrides, options.config_dir, options.max_length, options.stride, options.concatenate)
    for name in _OF_CAUSAL:
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is for a model that continues text, but {options.run} is not one; leave it out")
    from pretrain.evaluate.masked import evaluate

    return evaluate(subject, options.overrides, options.config_dir)


def _parser() -> Parser:
    parser = Parser("python -m pretrain.evaluate", description=_DESCRIPTION)
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, a checkpoint's, any with a model and tokenizer in Hugging Face format, or a name on the hub",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="data=... data.*=... as for python -m pretrain; for a BERT also objective.*"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU where there is one")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="lines to read, or one object with all figures")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of your own YAML files, looked at before ours")
    causal = parser.add_argument_group("GPT-2")
    causal.add_argument(
        "--max-length",
        type=_positive,
        metavar="N",
        help="tokens that the model sees at a time, at most its positions (of a run its data.max_seq_length, else all positions)",
    )
    causal.add_argument(
        "--stride",
        type=_positive,
        metavar="N",
        help="tokens scored at a time after a text's first window, which is scored whole; each then has at least max-length - N tokens "
        "before it (max-length / 2)",
    )
    causal.add_argument(
        "--concatenate",
        action="store_true",
        help="one stream of all documents, <|endoftext|> between them; else each document for itself. A run reads such a stream too, but "
        "scores <|endoftext|> as well, and the first token of a block with one token before it: its loss is another figure",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not valid; give a whole number, 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
