// Shapes of the tile registers; a part of the kernels in bfloat16, inside their unnamed namespace.

// Rows and bytes of a row of each tile register: four of sums, then inputs and weights of whole and half runs.
constexpr int kTileRegisters = 8;
constexpr int kTileRows[kTileRegisters] = {16, 16, 16, 16, 16, 16, 16, 8};
constexpr int kTileRowBytes[kTileRegisters] = {64, 64, 64, 64, 64, 32, 64, 64};
