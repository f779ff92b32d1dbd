"""The data's side on this machine: preparation and loader, beside what the Hugging Face libraries' own scripts do with the same text.

    python scripts/bench_data.py --text FILES... --vocab vocab.txt [--gpt2 vocab.json] [--repeats 3] [--output FILE.md]
    python scripts/bench_data.py --text FILES... --vocab vocab.txt --grow 0.25 1 3 [--processes 8] [--output FILE.md]

The second form measures instead how much memory the preparation of made corpora of so many gigabytes takes. Prints Markdown; how far it
has come goes to stderr. Needs the test dependencies.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import benchmark
from data_bench import loaders, preparation
from data_bench.preparation import ALONE, DATASETS, OURS, Family, Growth, Preparations

_LIBRARIES = ("numpy", "torch", "tokenizers", "datasets", "transformers", "pyarrow")


def heading(title: str) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return [
        f"# {title} ({date.today().isoformat()})",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{benchmark.processor()}; load before {os.getloadavg()[0]:.2f}; Python {platform.python_version()}, {versions}.",
    ]


def with_spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def preparation_table(made: dict[str, Preparations]) -> list[str]:
    lines = [
        "## Preparation",
        "",
        "| model | way | seconds | tokens/s | seconds / tokenizers alone | peak memory of all processes, MB |",
        "|---|---|---|---|---|---|",
    ]
    for family, of_family in made.items():
        alone = statistics.median(of_family.seconds(ALONE))
        for way, repeats in of_family.watched.items():
            seconds = of_family.seconds(way)
            median = statistics.median(seconds)
            peak = max(watched.peak_bytes for watched in repeats)
            cells = (
                family,
                way,
                with_spread(seconds, 1),
                f"{of_family.tokens / median:,.0f}",
                f"{median / alone:.2f}",
                f"{peak / 1e6:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += [""]
    for family, of_family in made.items():
        same = "the same" if of_family.our_tokens == of_family.tokens else f"but {of_family.our_tokens:,}"
        lines.append(f"{family}: {of_family.tokens:,} tokens by the library, {same} in the prepared files.")
    return [
        *lines,
        "",
        f"{OURS}: the whole command, from the start of Python to a checked folder. {DATASETS}: from the start of Python to blocks of 128 "
        f"and 1,024 tokens, as run_mlm.py and run_clm.py make them, on all cores. {ALONE}: encode_batch_fast with its own threads on text "
        "that lies unpacked, split and in memory; reading it is not timed. Medians, smallest and largest; memory is the largest PSS of all "
        "repeats.",
    ]


def loader_table(rates: Sequence[loaders.Rates]) -> list[str]:
    lines = [
        "## Loader, one core",
        "",
        "| objective | length | ours, sequences/s | tokens/s | plain, sequences/s | times as fast | asked, sequences/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in rates:
        case, ours = rate.case, statistics.median(rate.ours)
        times = ours / statistics.median(rate.plain)
        lines.append(
            f"| {case.objective.kind} | {case.length} | {with_spread(rate.ours)} | {ours * case.length:,.0f} | {with_spread(rate.plain)} "
            f"| {times:.0f} | {case.asked:,.0f} |"
        )
    return [
        *lines,
        "",
        "Ours: pretrain.data.loader's windows of micro-batches of 64. Plain: a datasets.Dataset of blocks, torch's DataLoader (shuffled, "
        "batches of 64, no workers) and DataCollatorForLanguageModeling; it makes no pairs, so that mlm_nsp stands beside its mlm. "
        "Sequences per second of CPU time, all threads on one core: medians, smallest and largest. Asked: ten times what one H200 takes.",
    ]


def growth_table(grown: Sequence[Growth]) -> list[str]:
    lines = [
        "| corpus, GB | documents kept | processes | seconds | peak memory of all processes, MB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {growth.corpus_bytes / 1e9:.2f} | {growth.documents:,} | {growth.processes} | {growth.watched.seconds:,.0f} "
        f"| {growth.watched.peak_bytes / 1e6:,.0f} |"
        for growth in grown
    ]
    return [
        *lines,
        "",
        "Documents of 1 to 15 sentences dealt from the text's, one in eleven a copy of an earlier one, deduplicated; told that there are "
        f"as many cores as processes, on {len(os.sched_getaffinity(0))}.",
    ]


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--text", nargs="+", type=Path, required=True, help="plain text, a blank line between documents; packed or not")
    parser.add_argument("--vocab", required=True, help="BERT's vocab.txt")
    parser.add_argument("--gpt2", help="GPT-2's vocab.json, merges beside it")
    parser.add_argument("--repeats", type=int, default=3, help="of each preparation; the loaders have five (default 3)")
    parser.add_argument("--grow", nargs="+", type=float, metavar="GB", help="sizes of made corpora")
    parser.add_argument("--processes", type=int, default=8, help="with --grow (default 8)")
    parser.add_argument("--scratch", type=Path, help="where the scratch folder is made")
    arguments = parser.parse_args()
    families = [preparation.bert(arguments.vocab), *([preparation.gpt2(arguments.gpt2)] if arguments.gpt2 else [])]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        lines = _grow(arguments, families[0], Path(scratch)) if arguments.grow else _compare(arguments, families, Path(scratch))
    text = "\n".join(lines) + "\n"
    benchmark.publish(text, arguments.output)


def _compare(arguments: argparse.Namespace, families: Sequence[Family], scratch: Path) -> list[str]:
    lines = heading("Preparation and loader beside the Hugging Face libraries")
    made = {family.name: preparation.measure(family, arguments.text, arguments.repeats, scratch) for family in families}
    rates = []
    for name, of_family in made.items():
        cases = loaders.BERT_CASES if name == "bert" else loaders.GPT2_CASES
        rates += loaders.measure(of_family.ours, of_family.blocks, cases)
    return [*lines, "", *loader_table(rates), "", *preparation_table(made)]


def _grow(arguments: argparse.Namespace, family: Family, scratch: Path) -> list[str]:
    lines = heading("Memory of preparation by the size of the corpus")
    return [*lines, "", *growth_table(preparation.measure_growth(family, arguments.text, arguments.grow, arguments.processes, scratch))]


if __name__ == "__main__":
    main()
