"""`python -m pretrain.compare`: optimizers beside each other, each at its best learning rate, over several seeds."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain import stopping
from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

if TYPE_CHECKING:
    from pretrain.compare.design import Design

_DESCRIPTION = """\
Train each optimizer at every learning rate of a grid, to the end of the schedule, widen the grid while its best rate lies at an edge, and
train the best rate with all seeds: equal tokens in equal order, equal model and initial weights, equal schedule. The runs are ordinary
runs; the same command goes on where it was, and ends with a table, a plot and a page in the comparison's folder.

examples:
  python -m pretrain.compare +experiment=bert_mini 'data.paths=[wiki/]' compare.optimizers=[came,adamw,lamb] compare.seeds=3
  python -m pretrain.compare ... compare.lrs.came=[1e-4,2e-4,4e-4]          the first grid of one, instead of its paper's advice
  python -m pretrain.compare ... hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=8     side by side, as jobs of Slurm
  python -m pretrain.compare --table runs/compare-bert_mini --format markdown      what is known so far; starts nothing
"""
_EPILOG = """\
settings (all others are those of the runs, as in python -m pretrain):
  compare.optimizers       names: came, adamw, lamb, adafactor, sm3, and the controls that --variants lists
  compare.seeds            how many, or a list; the first chooses the learning rates
  compare.rates            learning rates in a first grid (5), a factor of 2 apart, around the paper's advice
  compare.most_rates       how many a widened grid may have (9)
  compare.lrs.NAME         the first grid of one optimizer
  compare.variants.NAME    a variant of your own, which compare.optimizers names too: [optimizer=came,optimizer.beta3=0.9995]
  compare.name             the folder below run.dir (compare-<run.name>)
"""
_FORMATS = ("table", "markdown", "csv")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    if options.variants:
        from pretrain.compare.variants import listed

        print(listed())
        return 0
    if options.table:
        return _show(options)
    if options.format:
        raise UserError("--format goes with --table DIR; a comparison writes every format into its folder")
    if not options.overrides:
        raise UserError("what is to be compared is not said; give an experiment, such as +experiment=bert_mini, or see --help")
    stopping.listen()
    return _compare(options)


def _parser() -> Parser:
    parser = Parser("python -m pretrain.compare", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the runs and of compare.*, choices of groups")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of your own YAML files, looked at before ours")
    parser.add_argument("--dry-run", action="store_true", help="print the grids and what is still to be run, and exit")
    parser.add_argument("--variants", action="store_true", help="list what can be compared, with the settings of each, and exit")
    parser.add_argument("--table", metavar="DIR", nargs="+", help="print the table of these comparisons, which must be equal, and exit")
    parser.add_argument("--format", choices=_FORMATS, help="of --table (table)")
    return parser


def _compare(options: argparse.Namespace) -> int:
    from pretrain.compare import running
    from pretrain.compare.composing import read_command
    from pretrain.config.compose import names_launcher
    from pretrain.exit_codes import DONE
    from pretrain.sweep.plugins import chosen_launcher

    launcher = chosen_launcher([override for override in options.overrides if names_launcher(override)])
    comparison = read_command([override for override in options.overrides if not names_launcher(override)], options.config_dir)
    if options.dry_run:
        print(running.foretold(comparison))
        return DONE
    with running.begun(comparison, launcher) as begun:
        code = running.run_all(begun, launcher)
        if code == DONE:
            _write({begun.folder: begun.design}, begun.folder)
    return code


def _show(options: argparse.Namespace) -> int:
    from pretrain.compare import design

    beside = [*options.overrides, *(["--config-dir"] if options.config_dir else [])]
    if beside:
        raise UserError(f"--table starts no runs; leave {' '.join(beside)} out")
    folders = [user_path(folder) for folder in options.table]
    designs = {folder: design.load(folder) for folder in dict.fromkeys(folders)}
    print(_text(designs, options.format or "table"))
    return 0


def _text(designs: "dict[Path, Design]", form: str) -> str:
    from pretrain.compare import table
    from pretrain.compare.summary import summarise

    return {"table": table.as_text, "markdown": table.as_markdown, "csv": table.as_csv}[form](summarise(designs))


def _write(designs: "dict[Path, Design]", folder: Path) -> None:
    """The table in every format, the plot and the page, into `folder`; the table to the terminal too."""
    from pretrain.compare import table
    from pretrain.compare.page import render
    from pretrain.compare.plot import as_svg
    from pretrain.compare.summary import summarise

    summary = summarise(designs)
    texts = {
        "comparison.md": table.as_markdown(summary) + "\n",
        "comparison.csv": table.as_csv(summary) + "\n",
        "comparison.svg": as_svg(summary),
        "comparison.html": render(summary),
    }
    try:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}); make room, and give the same command again") from error
    print(f"{table.as_text(summary)}\n\nwrote {', '.join(str(folder / name) for name in texts)}")


if __name__ == "__main__":
    sys.exit(main())
