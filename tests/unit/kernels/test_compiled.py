"""The kernels compile ahead of time for a GPU that is not there, and what they need fits into its registers."""

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


@pytest.mark.soak
@pytest.mark.parametrize("arch", ["80", "90"])
def test_no_kernel_spills(arch: str) -> None:
    assert all(spilled == "0" for _, _, _, spilled, _, _ in compiled("--arch", arch))
