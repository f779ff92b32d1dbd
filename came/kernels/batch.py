"""The launches of one step over parameters of the same dtypes: three passes, and what lies between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from came.kernels import fields, finalise, passes, tables
from came.kernels.momentum import keys
from came.kernels.tables import Geometry, Piece

DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.int8: tl.int8}

OPTIONS = {"enable_fp_fusion": True}
"""Of every launch. Fused multiply-adds round once instead of twice; Triton's default for them differs between its versions."""

NUM_WARPS = 8
"""Of a pass; a finalising program needs few."""
NUM_WARPS_FINALISING = 4


@dataclass(frozen=True)
class Traits:
    """What a batch's parameters have in common: each is compiled for."""

    weight: torch.dtype
    gradient: torch.dtype
    momentum: torch.dtype
    process_group: Any
    """Ranks that hold the rest of each parameter; None where this rank holds all."""


class Batch:
    """Tables and sums of the pieces of one rank that go through the kernels together.

    `gradients` holds the addresses of the handed tensors' gradients, (handed,) int64, and `hyper` the hyper-parameters of the groups,
    (groups, fields.HYPER) float32; both are kept up to date by their owner.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        traits: Traits,
        geometry: Geometry,
        gradient_addresses: Sequence[int],
        gradients: Tensor,
        hyper: Tensor,
    ) -> None:
        self.pieces, self.traits, self.geometry = sorted(pieces, key=tables.cuts_blocks), traits, geometry
        self._gradients, self._hyper = gradients, hyper
        device = gradients.device
        built = tables.build(self.pieces, geometry, gradient_addresses)
        self.num_tiles, self.num_parts = len(built.tiles), len(built.parts)
        self._moved_tiles, self._num_flat_tiles = built.moved_tiles, len(built.flat_tiles)
        self._matrices = tables.on_device(built.matrices, fields.MATRIX.value, device)
        self._tiles = tables.on_device(built.tiles, fields.TILE.value, device)
        self._flat_tiles = tables.on_device(built.flat_tiles, fields.TILE.value, device)
        self._parts = tables.on_device(built.parts, fields.PART.value, device)
        self._parameters = tables.on_device(built.parameters, fields.PARAMETER.value, device)
        self._row_stride, self._col_stride, self._packed_stride = built.row_sums, built.col_sums, built.packed

        def sums(count: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(count, dtype=dtype, device=device)

        self.rounds = traits.momentum != torch.float32
        """Whether momentum is kept in less than it is computed in."""
        self._keys = torch.zeros(len(pieces) if self.rounds else 1, 2, dtype=torch.int32, device=device)
        split = traits.process_group is not None
        self._row_sums, self._col_sums = sums(3 * built.row_sums, torch.float64), sums(3 * built.col_sums, torch.float64)
        # Pass A's are added up before pass B writes its own.
        self._square_row_sums, self._square_col_sums = self._row_sums.view(torch.float32), self._col_sums.view(torch.float32)
        self.tile_sums = sums(self.num_tiles, torch.float64)
        self.direction_sums = sums(self._moved_tiles + self._num_flat_tiles, torch.float64)
        self._row_blocks, self._residual_row_blocks = sums(built.row_blocks, torch.float32), sums(built.row_blocks, torch.float32)
        self.clip_scales = sums(len(pieces), torch.float32)
        self.packed_squares = sums(built.packed if split else 0, torch.float32)
        self.packed_residuals = sums(3 * built.packed + len(pieces) if split else 0, torch.float64)

    def workspaces(self) -> list[Tensor]:
        """What holds nothing between two steps."""
        sums = [self._row_sums, self._col_sums, self.tile_sums, self.direction_sums]
        return [*sums, self._row_blocks, self._residual_row_blocks, self.clip_scales, self.packed_squares, self.packed_residuals]

    def square_sums(self, norm: bool = False) -> None:
        """Pass A; with `norm`, `tile_sums` are then the sums of the squares of the gradients."""
        if self.num_tiles:
            sums = (self._square_row_sums, self._square_col_sums, self.tile_sums)
            constants = dict(GRADIENT=DTYPES[self.traits.gradient], NORM=norm, **self._block())
            passes.square_sums[(self.num_tiles,)](
                self._matrices, self._tiles, self._gradients, *sums, **constants, num_warps=NUM_WARPS, **OPTIONS
            )

    def finalise_squares(self, mode: int, scale: Tensor) -> None:
        """What all gradients are multiplied by, `scale` (1,), comes in here and later."""
        sums = (self._square_row_sums, self._square_col_sums, self.packed_squares, self._row_blocks)
        finalise.finalise_squares[(self.num_parts,)](
            self._matrices,
            self._parts,
            self._hyper,
            scale,
            *sums,
            MODE=mode,
            PART=self.geometry.part,
            num_warps=NUM_WARPS_FINALISING,
            **OPTIONS,
        )

    def update_sums(self, scale: Tensor) -> None:
        """Pass B."""
        if self.num_tiles:
            sums = (self._row_blocks, self._row_sums, self._row_stride, self._col_sums, self._col_stride, self.tile_sums)
            dtypes = dict(GRADIENT=DTYPES[self.traits.gradient], MOMENTUM=DTYPES[self.traits.momentum])
            constants = dtypes | self._block(few_rows=True)
            passes.update_sums[(self.num_tiles,)](
                self._matrices, self._tiles, self._gradients, self._hyper, scale, *sums, **constants, num_warps=NUM_WARPS, **OPTIONS
            )

    def finalise_residuals(self, mode: int) -> None:
        sums = (self._row_sums, self._row_stride, self._col_sums, self._col_stride, self.tile_sums)
        packed = (self.packed_residuals, self._packed_stride, self._residual_row_blocks, self.clip_scales)
        finalise.finalise_residuals[(self.num_parts,)](
            self._matrices, self._parts, self._parameters, self._hyper, *sums, *packed,
            MODE=mode, PART=self.geometry.part, num_warps=NUM_WARPS_FINALISING, **OPTIONS,
        )  # fmt: skip

    def draw(self, steps: Sequence[int], seeds: Sequence[int]) -> None:
        """What the pieces' momentum is rounded with in this update, their numbers of which are `steps`."""
        if self.rounds:
            drawn = keys(seeds, steps, [piece.number for piece in self.pieces])
            self._keys.copy_(drawn.pin_memory() if self._keys.is_cuda else drawn, non_blocking=True)

    def move(self, scale: Tensor, observe: bool) -> None:
        """Pass C; with `observe`, `direction_sums` are then the sums of the squares of the directions."""
        sums = (self._row_blocks, self._residual_row_blocks, self.clip_scales, self._keys)
        dtypes = dict(GRADIENT=self.traits.gradient, MOMENTUM=self.traits.momentum, WEIGHT=self.traits.weight)
        block = self._block(few_rows=self.traits.momentum == torch.int8)
        constants = {name: DTYPES[dtype] for name, dtype in dtypes.items()} | dict(OBSERVE=observe, INTERPRETED=interpreted(), **block)
        if self._moved_tiles:
            passes.move[(self._moved_tiles,)](
                self._matrices, self._tiles, self._gradients, self._hyper, scale, *sums, self.direction_sums,
                **constants, num_warps=NUM_WARPS, **OPTIONS,
            )  # fmt: skip
        if self._num_flat_tiles:
            passes.move_lines[(self._num_flat_tiles,)](
                self._matrices, self._flat_tiles, self._gradients, self._hyper, scale, *sums, self.direction_sums[self._moved_tiles :],
                **constants, num_warps=NUM_WARPS, **OPTIONS,
            )  # fmt: skip

    def _block(self, few_rows: bool = False) -> dict[str, int]:
        rows = self.geometry.few_block_rows if few_rows else self.geometry.block_rows
        return dict(BLOCK_ROWS=rows, BLOCK_COLS=self.geometry.block_cols)


def interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on the CPU (`TRITON_INTERPRET=1` when Triton is imported)."""
    return not hasattr(passes.move, "cache_hook") and type(passes.move).__name__ == "InterpretedFunction"
