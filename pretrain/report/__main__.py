"""`python -m pretrain.report RUN...`: runs beside each other, as a page, a table or plots."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

if TYPE_CHECKING:
    from pretrain.report.run import Run

_DESCRIPTION = """\
Compare runs: which is better, at what cost in time and memory, and whether the difference is more than that between seeds. A RUN is a
run's folder, a folder that holds several, a metrics.jsonl, or an offline .wandb file; runs may still be going on.

examples:
  python -m pretrain.report runs -o report.html                      one HTML file that needs nothing else
  python -m pretrain.report runs --watch                             the same on localhost, as the runs go on
  python -m pretrain.report runs/came runs/adamw --format table      in the terminal
  python -m pretrain.report runs --format svg -o figures             plots for a paper
"""
_TEXT_FORMATS, _PLOT_FORMATS = ("table", "csv", "markdown"), ("png", "svg")
_SUFFIXES = {".html": "html", ".csv": "csv", ".md": "markdown", ".txt": "table"}
_DEFAULT_PORT, _LAST_PORT = 8265, 65535


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    x = {"wall": "wall_seconds"}.get(options.x, options.x)
    output = user_path(options.output, "--output ") if options.output else None
    form = options.format or _format_of(output)
    if options.watch:
        if output or options.format:
            raise UserError("--watch writes no file; leave -o and --format out")
        return _watch(options.runs, options.target, x, options.port)
    from pretrain.report.reading import read_runs

    runs = read_runs(options.runs)
    try:
        if form in _TEXT_FORMATS:
            return _give(_text(runs, form, options.target), output)
        if form in _PLOT_FORMATS:
            from pretrain.report.plots import write_plots

            return _told(write_plots(runs, output or Path("figures"), form, x))
        output = output or Path("report.html")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(_page(runs, options.target, x), encoding="utf-8")
        return _told([output])
    except OSError as error:
        raise UserError(f"{error.filename or output} cannot be written ({error.strerror or error}); give another place: -o PATH") from error


def _format_of(output: Path | None) -> str:
    if output is None or not output.suffix:
        return "html"
    if output.suffix not in _SUFFIXES:
        raise UserError(f"the end of {output} names no format; give one of {', '.join(_SUFFIXES)}, or --format (plots go into a folder)")
    return _SUFFIXES[output.suffix]


def _parser() -> Parser:
    parser = Parser("python -m pretrain.report", description=_DESCRIPTION)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, a folder of runs, metrics.jsonl or a .wandb file")
    parser.add_argument("-o", "--output", metavar="PATH", help="the file to write (report.html), for plots the folder (figures)")
    parser.add_argument("--format", choices=("html", *_TEXT_FORMATS, *_PLOT_FORMATS), help="html unless the end of PATH says otherwise")
    parser.add_argument("--target", type=_loss, metavar="LOSS", help="validation loss to reach; AdamW's best, else the median, without it")
    parser.add_argument("--x", choices=("step", "tokens", "wall"), default="step", help="what the curves are drawn over")
    parser.add_argument("--watch", action="store_true", help="serve the page on localhost and refresh it as the runs go on")
    parser.add_argument("--port", type=_port, default=_DEFAULT_PORT, help=f"for --watch ({_DEFAULT_PORT}); 0: a free one")
    return parser


def _loss(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not valid; give a loss in nats, such as 3.2")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not valid; give a number up to {_LAST_PORT}")
    return int(text)


def _text(runs: list["Run"], form: str, target: float | None) -> str:
    from pretrain.report import table

    return {"table": table.as_text, "csv": table.as_csv, "markdown": table.as_markdown}[form](runs, target)


def _page(runs: list["Run"], target: float | None, x: str) -> str:
    from pretrain.report.page import render
    from pretrain.report.page_data import page_data

    return render(page_data(runs, target, x))


def _watch(paths: list[str], target: float | None, x: str, port: int) -> int:
    from pretrain.report.page_data import page_data
    from pretrain.report.watch import Latest, serve

    server = serve(Latest(paths, lambda runs: page_data(runs, target, x)), port)
    print(f"http://localhost:{server.server_address[1]}  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return 0


def _give(text: str, output: Path | None) -> int:
    if output is None:
        print(text)
        return 0
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n", encoding="utf-8")
    return _told([output])


def _told(written: list[Path]) -> int:
    for path in written:
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
