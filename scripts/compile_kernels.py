"""The kernels of the fused CAME step, compiled ahead of time for a GPU that need not be there: registers, spills and shared memory.

    python scripts/compile_kernels.py [--arch 90] [--only KERNEL ...] [--output scripts/bench_results/DATE_kernels_sm_90.md]

Needs Triton, which brings its own assembler. Exit code 1 if a kernel spills.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import benchmark


@dataclass(frozen=True)
class Variant:
    """A kernel with what it is compiled for."""

    name: str
    kernel: Any
    constants: dict[str, Any]
    num_warps: int


@dataclass(frozen=True)
class Compiled:
    """What the assembler says of a variant."""

    variant: Variant
    registers: int
    """For each thread."""
    spill_bytes: int
    """Of local memory, for each thread."""
    shared_bytes: int
    """For each program."""
    wide_loads: int
    """Instructions that load 16 bytes a thread from global memory."""


def variants() -> Iterator[Variant]:
    """All that a run may meet: gradients and momentum in each dtype, weights in float32 or like the gradients."""
    import torch

    from came.kernels import finalise, passes
    from came.kernels.batch import DTYPES, NUM_WARPS, NUM_WARPS_FINALISING
    from came.kernels.tables import Geometry

    block = dict(BLOCK_ROWS=Geometry.block_rows, BLOCK_COLS=Geometry.block_cols)
    few_rows = block | dict(BLOCK_ROWS=Geometry.few_block_rows)
    gradients = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kept = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
    for name, dtype in gradients.items():
        for norm in (False, True):
            constants = dict(GRADIENT=DTYPES[dtype], NORM=norm, **block)
            yield Variant(f"A square_sums, g {name}" + (", norm" if norm else ""), passes.square_sums, constants, NUM_WARPS)
    for (name, dtype), (of_momentum, momentum) in product(gradients.items(), kept.items()):
        dtypes = dict(GRADIENT=DTYPES[dtype], MOMENTUM=DTYPES[momentum])
        yield Variant(f"B update_sums, g {name}, m {of_momentum}", passes.update_sums, dtypes | few_rows, NUM_WARPS)
    for (name, dtype), (of_momentum, momentum), observe in product(gradients.items(), kept.items(), (False, True)):
        dtypes = dict(GRADIENT=DTYPES[dtype], MOMENTUM=DTYPES[momentum], WEIGHT=DTYPES[dtype])
        constants = dtypes | dict(OBSERVE=observe, INTERPRETED=False) | (few_rows if of_momentum == "int8" else block)
        observed = ", observed" if observe else ""
        yield Variant(f"C move, g and p {name}, m {of_momentum}{observed}", passes.move, constants, NUM_WARPS)
        if of_momentum == "int8":
            yield Variant(f"C move_lines, g and p {name}, m {of_momentum}{observed}", passes.move_lines, constants, NUM_WARPS)
    for mode in ("WHOLE", "REDUCE", "AVERAGE"):
        for kernel in (finalise.finalise_squares, finalise.finalise_residuals):
            constants = dict(MODE=getattr(finalise, mode).value, PART=Geometry.part)
            yield Variant(f"{kernel.__name__}, {mode.lower()}", kernel, constants, NUM_WARPS_FINALISING)


_POINTERS = {
    "matrices": "*i64", "tiles": "*i64", "parts": "*i64", "parameters": "*i64", "gradients": "*i64", "hyper": "*fp32", "scale": "*fp32",
    "row_blocks": "*fp32", "residual_row_blocks": "*fp32", "clip_scales": "*fp32", "keys": "*i32", "tile_sums": "*fp64",
}  # fmt: skip
_OF_SUMS = {"square_sums": "*fp32", "finalise_squares": "*fp32", "update_sums": "*fp64", "finalise_residuals": "*fp64"}


def signature(variant: Variant) -> dict[str, str]:
    """The types of a kernel's arguments."""
    types = {}
    for name in variant.kernel.arg_names:
        if name in variant.constants:
            types[name] = "constexpr"
        elif name in ("row_sums", "col_sums", "packed"):
            types[name] = _OF_SUMS[variant.kernel.__name__]
        else:
            types[name] = _POINTERS.get(name, "i32")
    return types


def compile_for(variant: Variant, arch: int) -> Any:
    """Triton's compiled kernel, whose `asm` holds the code in its forms."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from came.kernels.batch import OPTIONS

    types = signature(variant)
    aligned = {(number,): [["tt.divisibility", 16]] for number, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(variant.kernel, types, variant.constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": variant.num_warps, **OPTIONS})


def compile_variant(variant: Variant, arch: int) -> Compiled:
    made = compile_for(variant, arch)
    registers, spills, shared = resources(made.asm["cubin"])
    wide = len(re.findall(r"ld\.global\S*\.v4\.b32|ld\.global\S*\.v2\.b64|ld\.global\S*\.v4\.u32", made.asm["ptx"]))
    return Compiled(variant, registers, spills, max(shared, made.metadata.shared), wide)


def resources(cubin: bytes) -> tuple[int, int, int]:
    """Registers, bytes of local memory and static shared memory that the assembler used, by `cuobjdump`."""
    import triton

    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile("wb", suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([cuobjdump, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", said)}
    return used["REG"], used["STACK"] + used["LOCAL"], used["SHARED"]


def report(found: list[Compiled], arch: int) -> str:
    lines = [
        f"# The kernels of the fused CAME step, compiled for sm_{arch}",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"triton {version('triton')} and its ptxas, ahead of time; no GPU took part. Per thread, but shared memory per program.",
        "",
        "| kernel | warps | registers | spilled bytes | shared bytes | 16-byte loads in the code |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        numbers = (one.variant.num_warps, one.registers, one.spill_bytes, one.shared_bytes, one.wide_loads)
        lines.append(f"| {one.variant.name} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--arch", type=int, default=90, help="compute capability, 90 for an H100")
    parser.add_argument("--only", nargs="+", metavar="KERNEL", help="names as in the table; all if left out")
    arguments = parser.parse_args()
    chosen = [variant for variant in variants() if not arguments.only or variant.name in arguments.only]
    found = [compile_variant(variant, arguments.arch) for variant in chosen]
    benchmark.publish(report(found, arguments.arch), arguments.output)
    sys.exit(any(one.spill_bytes for one in found))


if __name__ == "__main__":
    main()
