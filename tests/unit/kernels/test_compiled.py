"""The kernels compile ahead of time for a GPU that is not there, and what they need fits into its registers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def compiled(*arguments: str) -> list[list[str]]:
    """The table's rows: kernel, warps, registers, spilled bytes, shared bytes, wide loads."""
    pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")
    done = subprocess.run([sys.executable, SCRIPTS / "compile_kernels.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return [line for line in lines if line[1].isdigit()]


def test_the_ordinary_kernels_compile_for_an_h100_without_spilling() -> None:
    rows = compiled(
        "--only", "A square_sums, g fp32", "B update_sums, g fp32, m fp32", "C move, g and p fp32, m fp32", "finalise_residuals, whole"
    )
    assert len(rows) >= 4 and all(spilled == "0" for _, _, _, spilled, _, _ in rows)
    passes = {row[0]: row for row in rows if not row[0].startswith("finalise")}
    assert all(int(wide) > 0 for *_, wide in passes.values()), "aligned tiles are read 16 bytes at a time"


PRINT_THE_PTX = """
from compile_kernels import compile_for, variants
print(*(compile_for(variant, 90).asm["ptx"] for variant in variants() if variant.name.startswith("finalise") and "whole" in variant.name))
"""


def test_no_thread_stores_an_average_before_all_have_loaded_theirs() -> None:
    """A part has fewer elements than a program has threads: some repeat what others do but for the store, and their sums count."""
    pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")
    done = subprocess.run([sys.executable, "-c", PRINT_THE_PTX], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    in_place = 0
    for kernel in done.stdout.split(".entry")[1:]:
        loaded: set[str] = set()
        since_a_barrier: set[str] = set()
        for found in re.finditer(r"(ld|st)\.global[^;]*\[ *(%rd\d+)[^;]*;|bar\.sync", kernel):
            kind, address = found.groups()
            if kind is None:
                since_a_barrier.clear()
            elif kind == "ld":
                loaded.add(address)
                since_a_barrier.add(address)
            else:
                assert address not in since_a_barrier, found.group()
                in_place += address in loaded
    assert in_place == 4, "rows and columns, of both kernels"


@pytest.mark.soak
@pytest.mark.parametrize("arch", ["80", "90"])
def test_no_kernel_spills(arch: str) -> None:
    assert all(spilled == "0" for _, _, _, spilled, _, _ in compiled("--arch", arch))
