"""What all benchmarks share: their command line, what they ran on, and where their Markdown goes."""

import argparse
import platform
from pathlib import Path


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with `--output`, described by the benchmark's own docstring."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, help="also write the Markdown there")
    return made


def publish(text: str, output: Path | None) -> None:
    """Print the Markdown, and write it where `--output` says."""
    print(text)
    if output is not None:
        output.write_text(text)


def processor() -> str:
    """The processor and how many cores there are of it."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0]}, {len(models)} core(s)" if models else platform.processor()
