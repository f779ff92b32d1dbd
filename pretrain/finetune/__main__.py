"""`python -m pretrain.finetune RUN task=NAME`: how much a pretrained model is worth on GLUE and SQuAD v1.1."""

import sys
from pathlib import Path

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

_DESCRIPTION = """\
Fine-tune a pretrained encoder on a task of GLUE or on SQuAD v1.1, once for each seed, and print the usual metrics. MODEL is a run (its
export, else its newest checkpoint), a checkpoint, a folder in Hugging Face format, or a name on the hub.

examples:
  python -m pretrain.finetune runs/bert_mini task=sst2 finetune.data_dir=glue/SST-2 finetune.seeds=[0,1,2] optimizer.lr=1e-4
  python -m pretrain.finetune runs/bert_mini task=sst2 finetune.data_dir=glue/SST-2 finetune.seeds=[0,1,2] optimizer.lr=1e-4 \\
      finetune.from_scratch=true                     the control: the same architecture and tokenizer with random weights
  python -m pretrain.finetune bert-base-uncased task=squad optimizer=came optimizer.lr=2e-5
  python -m pretrain.finetune --table runs --format markdown

settings (key=value):
  task                               sst2, mrpc, rte, cola, stsb, qnli, mnli or squad
  finetune.data_dir                  folder of the task's usual files (train.tsv, dev.tsv; train-v1.1.json, dev-v1.1.json), or the folder
                                     around it; without it the data set is downloaded from the hub
  finetune.output_dir                folder of results.json and the predictions (MODEL/finetune/<task>-<optimizer>-lr_<lr>)
  finetune.seeds                     [0,1,2]; what a seed decides: new weights, order of the examples, dropout ([0])
  finetune.num_epochs, .max_steps    passes over the training examples (3); updates at most
  finetune.batch_size                examples of an update (32); finetune.eval_batch_size (128): memory alone depends on it
  finetune.max_seq_length            tokens (128, squad 384); finetune.doc_stride: tokens that two windows of a text share (a third of that)
  finetune.max_train_examples        train on so many examples, the same for every seed
  finetune.dropout                   every dropout of the model at once (as it was pretrained)
  finetune.grad_clip                 largest global gradient norm (1); 0 clips nothing
  finetune.from_scratch              true: random weights
  finetune.save                      true: keep the models, in Hugging Face format
  finetune.device                    cpu, cuda, cuda:1, ... (auto: the GPU where there is one)
  optimizer                          adamw (the default, lr 5e-5), came, lamb, adafactor or sm3, which want their optimizer.lr
  optimizer.lr, .weight_decay, ...   as in python -m pretrain
  schedule                           linear (the default), cosine or constant, after a warm-up of schedule.warmup_ratio (0.1) of the updates

The scores are those after the last epoch. The same command again does only the seeds that are missing.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    if options.table:
        if options.given:
            raise UserError(f"--table shows results that there are, but {options.given[0]} is given; leave one of them out")
        return _show(options.table, options.format or "text")
    if options.format:
        raise UserError(f"--format {options.format} is for --table; leave it out")
    if not options.given or ("=" in options.given[0] and not user_path(options.given[0]).exists()):
        raise UserError("no model is given; name one first: python -m pretrain.finetune runs/NAME task=...")
    from pretrain.config.finetuning import read_finetuning

    given, *settings = options.given
    config = read_finetuning(settings)
    from pretrain.finetune.command import finetune

    return finetune(given, config)


def _parser() -> Parser:
    parser = Parser("python -m pretrain.finetune", usage="%(prog)s MODEL task=NAME [key=value ...]", description=_DESCRIPTION)
    parser.add_argument("given", nargs="*", metavar="MODEL key=value", help="the model, then the settings")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FOLDER", help="show the results in these folders and below them")
    parser.add_argument("--format", choices=("text", "markdown"), help="with --table (text)")
    return parser


def _show(folders: list[Path], form: str) -> int:
    from pretrain.finetune import table

    contents = table.read_all(user_path(folder) for folder in folders)
    print(table.as_markdown(contents) if form == "markdown" else table.as_text(contents))
    return 0


if __name__ == "__main__":
    sys.exit(main())
