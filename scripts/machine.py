"""What a benchmark ran on."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor and how many cores there are of it."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0]}, {len(models)} core(s)" if models else platform.processor()
