"""`python -m pretrain.prepare`: text -> token files, ahead of time, on as many cores as there are."""

import sys

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

_DESCRIPTION = """\
Prepare the corpus of a run: read it, train or read the tokenizer, and write token files, checksums and a manifest. Give the settings
that the run will have; those that do not concern the text may be left out. What was interrupted goes on where it stopped.
"""
_EXAMPLES = """\
examples:
  python -m pretrain.prepare +experiment=bert_32k data=wikipedia tokenizer.path=bert-large-uncased
  python -m pretrain.prepare +experiment=bert_32k data=mixture 'data.mixture.wiki.paths=[wiki/]' data.mixture.wiki.weight=3 \\
      'data.mixture.books.paths=[books/]' tokenizer.path=vocab.txt -o prepared/bert     then: data=prepared data.path=prepared/bert
  python -m pretrain.prepare data=prepared data.path=prepared/bert --verify
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    from pretrain.config.compose import compose
    from pretrain.config.consistency import check_sources
    from pretrain.data import prepared
    from pretrain.data.prepare import folder_of, prepare

    config = compose(options.overrides, options.config_dir)
    check_sources(config)
    output = user_path(options.output, "--output ") if options.output else None
    if output and config.data.kind == "prepared":
        raise UserError("--output names a folder to make, but data=prepared makes none; leave one of them out")
    if options.verify:
        folder = folder_of(config, output)
        if not folder.exists():
            raise UserError(f"there is no prepared corpus {folder}; leave --verify out to make it")
        print(f"{folder}: {prepared.verify(folder, progress=True)} files match their checksums")
        return 0
    folder = prepare(config, output=output)
    counts = [source["counts"] for source in prepared.whole_manifest(folder)["sources"].values()]
    tokens = [sum(count[split]["tokens"] for count in counts) for split in ("train", "valid")]
    print(f"prepared in {options.output or folder}: {tokens[0]:,} training tokens, {tokens[1]:,} validation tokens")
    return 0


def _parser() -> Parser:
    parser = Parser("python -m pretrain.prepare", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings and choices of groups, as for python -m pretrain")
    parser.add_argument("-o", "--output", metavar="DIR", help="the prepared folder to make, instead of one in data.cache_dir")
    parser.add_argument("--verify", action="store_true", help="compare every prepared file with its checksum and prepare nothing")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder of your own YAML files, looked at before ours")
    return parser


if __name__ == "__main__":
    sys.exit(main())
