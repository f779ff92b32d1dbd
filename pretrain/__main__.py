"""`python -m pretrain`: from the command line to a trained model.

Heavy imports wait until they are needed, so that `--help` and a mistake in the settings are answered at once.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from pretrain import __version__, startup, stopping
from pretrain.command import Parser, run_command
from pretrain.config.location import group_choices
from pretrain.errors import UserError

if TYPE_CHECKING:
    from pretrain.config.schema import Config

_EXAMPLES = """\
examples:
  python -m pretrain                                            train the demo experiment
  python -m pretrain +experiment=bert_32k 'data.paths=[wiki/]'  the CAME paper's BERT-Large on your text
  python -m pretrain +experiment=gpt2_xl run.dry_run=true launch.num_processes=64    print the plan and exit
  python -m pretrain optimizer=adamw optimizer.lr=3e-4 run.name=adamw train.num_steps=200
  python -m pretrain -m optimizer=came,adamw optimizer.lr=1e-4,3e-4 run.seed=1,2,3    twelve runs, one after another
"""

_MAIN_KEYS = """\
main settings (key=value; `--cfg job` prints all of them with their values):
  run.name, run.dir                  folder of the run: <run.dir>/<run.name>; the same command again continues the run
  run.seed, run.dry_run, run.resume  everything random follows from the seed; a dry run prints the plan and needs no data
  run.init_from                      begin with the weights of another run, a checkpoint, or a model in Hugging Face format
  checkpoint.keep_last, .keep_every  how many checkpoints stay (5); those of every so many steps stay for good
  train.global_batch_size            samples per optimizer step over all ranks
  train.micro_batch_size             samples per forward/backward on one rank, auto for as many as fit; accumulation follows from it
  train.num_steps, train.precision   optimizer steps; fp32, bf16 or (GPU) fp16
  data.paths, data.max_seq_length    with data=text: files, folders or globs; tokens per sequence
  optimizer.lr, model.dropout        peak learning rate; every dropout of the model at once
  launch.num_processes               ranks, one per GPU; on a CPU two where there are two cores
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    startup.mark("python")
    options = _parser().parse_intermixed_args(arguments)
    if options.help:
        print(_help(options.config_dir))
        return 0
    if options.package is not None and (options.multirun or not options.cfg):
        raise UserError("--package goes with --cfg job, of one run; add --cfg job, or leave -m out")
    if not options.cfg:
        stopping.listen()
    if options.multirun:
        return _sweep(options)
    config = _configuration(options)
    if options.cfg:
        from pretrain.config.serialise import to_yaml, value_of

        print(to_yaml(config) if options.package is None else f"{value_of(config, options.package)}\n", end="")
        return 0
    from pretrain.launch import launch

    startup.mark("settings")
    return launch(config)


def _sweep(options: argparse.Namespace) -> int:
    if options.config:
        raise UserError(f"--config {options.config} is the configuration of one run; leave -m or --config out")
    from pretrain.sweep.command import print_configurations, sweep

    if options.cfg:
        print_configurations(options.overrides, options.config_dir)
        return 0
    return sweep(options.overrides, options.config_dir)


def _configuration(options: argparse.Namespace) -> "Config":
    if options.config is None:
        from pretrain.config.compose import compose

        return compose(options.overrides, options.config_dir)
    from pretrain.config.serialise import from_file

    beside = [*options.overrides, *(["--config-dir"] if options.config_dir else [])]
    if beside:
        raise UserError(f"--config {options.config} is a whole configuration; leave {' '.join(beside)} out, or change the file")
    return from_file(options.config)


def _parser() -> Parser:
    parser = Parser("python -m pretrain", add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings and choices of groups, as in Hydra")
    parser.add_argument("-h", "--help", action="store_true", help="print this and exit")
    parser.add_argument("--version", action="version", version=__version__, help="print the version and exit")
    parser.add_argument("--cfg", choices=("job",), help="print the composed configuration and exit")
    parser.add_argument("-p", "--package", metavar="KEY", help="with --cfg job: print this setting alone, such as run.name")
    parser.add_argument("--config", metavar="FILE", help="run a whole configuration that --cfg job printed; composes nothing")
    parser.add_argument("-m", "--multirun", action="store_true", help="a run for every combination of the values given as key=first,second")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of your own YAML files, looked at before ours")
    return parser


def _help(config_dir: str | None) -> str:
    choices = group_choices(*([config_dir] if config_dir else []))
    experiments = choices.pop("experiment", [])
    width = max(len(group) for group in choices)
    groups = "\n".join(f"  {group:<{width}}  {', '.join(names)}" for group, names in choices.items())
    return "\n".join(
        (
            "Pretrain BERT and GPT-2 with the CAME optimizer on DeepSpeed ZeRO.\n",
            _parser().format_help(),
            f"experiments (+experiment=NAME; without one: demo):\n  {', '.join(experiments)}\n",
            f"groups (group=NAME):\n{groups}\n",
            _MAIN_KEYS,
            _EXAMPLES.rstrip(),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
