"""The columns of the integer tables that the kernels read, by name.

A table is an int64 tensor with one row per item. An address is a byte address on the device; every other place is counted in elements.
"""

from triton.language import constexpr

VECTOR = constexpr(1)
"""A parameter of one dimension or none: no factors, elements laid in rows of `Geometry.block_cols` of its own."""

LINES = constexpr(2)
"""What this rank holds of a stack of matrices, laid in rows of `Geometry.block_cols` as a vector is: what 8-bit momentum is written over
where its blocks begin and end within rows."""

# A matrix: one of a parameter's matrices, a vector, or lines; with what this rank holds of it.
MATRIX_KIND = constexpr(0)
MATRIX_PARAMETER = constexpr(1)  # row of the parameters' table
MATRIX_HYPER = constexpr(2)  # row of the hyper-parameters
MATRIX_ROWS = constexpr(3)  # of the whole matrix
MATRIX_COLS = constexpr(4)
MATRIX_START = constexpr(5)  # first element that this rank holds, counted in the matrix
MATRIX_HANDED = constexpr(6)  # row of the table of gradients' addresses
MATRIX_GRADIENT = constexpr(7)  # first element in that gradient
MATRIX_WEIGHT = constexpr(8)  # address of the first element
MATRIX_MOMENTUM = constexpr(9)  # address
MATRIX_SECOND = constexpr(10)  # address; a vector's second moment
MATRIX_ROW_AVERAGE = constexpr(11)  # address of the matrix's part of exp_avg_sq_row
MATRIX_COL_AVERAGE = constexpr(12)  # ... exp_avg_sq_col
MATRIX_ROW_RESIDUAL = constexpr(13)  # ... exp_avg_res_row
MATRIX_COL_RESIDUAL = constexpr(14)  # ... exp_avg_res_col
MATRIX_FIRST_ROW = constexpr(15)  # first row of which this rank holds something
MATRIX_LOCAL_ROWS = constexpr(16)  # rows of which it does
MATRIX_STRIPS = constexpr(17)  # strips of rows that its tiles make
MATRIX_COL_BLOCKS = constexpr(18)  # tiles beside each other in a strip
MATRIX_ROW_SUMS = constexpr(19)  # place of its row sums, (col_blocks, local_rows)
MATRIX_COL_SUMS = constexpr(20)  # place of its column sums, (strips, cols)
MATRIX_PACKED = constexpr(21)  # place of its rows and columns in what is reduced over the ranks
MATRIX_ROW_BLOCKS = constexpr(22)  # place of the sums of its row averages, one per finalising program
MATRIX_ROW_BLOCK_COUNT = constexpr(23)
MATRIX_FIRST = constexpr(24)  # its first element, counted in the parameter
MATRIX_SCALES = constexpr(25)  # address of the scales of 8-bit momentum
MATRIX_FIRST_BLOCK = constexpr(26)  # block of the parameter that the first of them is of
MATRIX_STACK = constexpr(27)  # of lines: row of the first of the matrices, which lie one after the other, as their factors do
MATRIX = constexpr(28)  # columns

# A tile: what one program of a pass goes over, at most strip_rows x block_cols elements of one matrix.
TILE_MATRIX = constexpr(0)
TILE_ROW = constexpr(1)  # first row
TILE_ROWS = constexpr(2)
TILE_COL = constexpr(3)  # first column
TILE_LOW = constexpr(4)  # columns that this rank holds of these rows, [low, high)
TILE_HIGH = constexpr(5)
TILE_STRIP = constexpr(6)
TILE_COL_BLOCK = constexpr(7)  # number of its column block
TILE_ALIGNED = constexpr(8)  # whole rows whose addresses are multiples of 16 bytes
TILE = constexpr(9)

# A part: what one finalising program makes, `Geometry.part` rows or columns of a matrix, or the clipping of a vector.
ROWS_PART = constexpr(0)
COLS_PART = constexpr(1)
CLIPPING_PART = constexpr(2)
PART_MATRIX = constexpr(0)
PART_AXIS = constexpr(1)
PART_FIRST = constexpr(2)  # first row or column
PART_BLOCK = constexpr(3)  # number of this part along its axis
PART_LEADS = constexpr(4)  # whether it stores the parameter's clipping
PART = constexpr(5)

# A parameter: what is clipped together.
PARAMETER_FIRST_TILE = constexpr(0)
PARAMETER_TILES = constexpr(1)
PARAMETER_TOTAL = constexpr(2)  # elements of the whole parameter
PARAMETER = constexpr(3)

# The hyper-parameters, float32.
LR = constexpr(0)
WEIGHT_DECAY = constexpr(1)
BETA1 = constexpr(2)
WEIGHT1 = constexpr(3)  # 1 - beta1, of the host's double precision; likewise 2 and 3
WEIGHT2 = constexpr(4)
WEIGHT3 = constexpr(5)
EPS1 = constexpr(6)
EPS2 = constexpr(7)
CLIP_THRESHOLD = constexpr(8)
SIGN = constexpr(9)  # -1 to maximise
UPDATE_FACTOR = constexpr(10)  # bias corrections: of the second moment,
MATRIX_FACTOR = constexpr(11)  # of momentum and confidence,
VECTOR_FACTOR = constexpr(12)  # of momentum alone
HYPER = constexpr(13)
