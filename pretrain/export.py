"""`python -m pretrain.export RUN OUT`: the model of a checkpoint in Hugging Face format, or all of the checkpoint in one plain file."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

if TYPE_CHECKING:
    from pretrain.checkpoint.opening import Opened

_DESCRIPTION = """\
Write the model of a run's newest whole checkpoint in Hugging Face format: weights in safetensors, configuration and tokenizer. Every file
of the checkpoint is compared with its checksum first. The run's folder is all it needs.

examples:
  python -m pretrain.export runs/bert_32k bert_large                 then: AutoModel.from_pretrained("bert_large")
  python -m pretrain.export runs/bert_32k --step 10000 half_way
  python -m pretrain.export runs/bert_32k --torch bert_large.pt      then: torch.load("bert_large.pt", weights_only=True)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    output = user_path(options.output)
    if os.path.lexists(output):
        raise UserError(f"{output} already exists; give another name, or delete it")
    from pretrain.checkpoint.opening import named, open_whole
    from pretrain.model.pretrained import export

    opened = open_whole(named(user_path(options.run), options.step))
    for path, problem in opened.damaged.items():
        print(f"warning: {path} is damaged ({problem}); {opened.path.name} is used instead", file=sys.stderr)
    config, tokenizer = opened.config, opened.tokenizer_dir
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if options.torch:
            _write_plain(opened, output)
        else:
            export(config, tokenizer, opened.path, output)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror or error}); give another place") from error
    print(f"step {opened.step:,} of {opened.path.resolve().parents[1].name} is in {output}")
    return 0


def _parser() -> Parser:
    parser = Parser("python -m pretrain.export", description=_DESCRIPTION)
    parser.add_argument("run", metavar="RUN", help="a run's folder, or that of one of its checkpoints")
    parser.add_argument("output", metavar="OUT", help="the folder (with --torch the file) to make")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step, instead of the newest whole one")
    parser.add_argument(
        "--torch", action="store_true", help="one file for torch.load: weights, optimizer state, progress and configuration"
    )
    return parser


# One plain file -------------------------------------------------------------------------------------------------------------------


def plain_content(opened: "Opened") -> dict[str, Any]:
    """All of a checkpoint, as tensors and plain values.

    `model`: fp32 weights in their shapes, by transformers' names. `optimizer`: by the same names, state by its name; what has one value
    per weight is in the weight's shape, row and column factors are (matrices, rows) and (matrices, columns). `progress` and `config` as
    in the manifest.
    """
    from came.checkpoint import MASTER, load_whole
    from pretrain.model.build import vocabulary_in
    from pretrain.model.pretrained import WRAPPER_PREFIX, parameter_shapes

    shapes = parameter_shapes(opened.config, vocabulary_in(opened.tokenizer_dir))
    weights, state = {}, {name: {} for name in shapes}
    for key, value in load_whole(opened.path).items():
        name, _, kind = key.removeprefix(WRAPPER_PREFIX).rpartition("/")
        shaped = value.view(shapes[name]) if value.shape == (shapes[name].numel(),) else value
        if kind == MASTER:
            weights[name] = shaped
        else:
            state[name][kind] = shaped
    ordered = {name: weights[name] for name in shapes}
    return {"model": ordered, "optimizer": state, "progress": opened.manifest["progress"], "config": opened.manifest["config"]}


def _write_plain(opened: "Opened", output: Path) -> None:
    """In one instant. Raises OSError."""
    import torch

    content = plain_content(opened)
    temporary = output.with_name(output.name + ".tmp")
    try:
        torch.save(content, temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    except RuntimeError as error:  # torch's word for a file that took less than it was given, or could not be made
        temporary.unlink(missing_ok=True)
        raise OSError("the file could not be written whole") from error
    temporary.replace(output)


if __name__ == "__main__":
    sys.exit(main())
