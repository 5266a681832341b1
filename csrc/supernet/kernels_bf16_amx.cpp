// Kernels that convolve in bfloat16 with the tile registers of AMX; the rest as for AVX-512.
#include <immintrin.h>

namespace nas_engine {
namespace {
constexpr int kAccumulators = 24;
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

#include "supernet/tile_registers.h"

// Registers of this thread until `release_tiles`.
void configure_tiles() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } configuration;
    for (int i = 0; i < kTileRegisters; ++i) {
        configuration.row_bytes[i] = static_cast<uint16_t>(kTileRowBytes[i]);
        configuration.rows[i] = static_cast<uint8_t>(kTileRows[i]);
    }
    // The compiler takes it that only the first bytes are read.
    __asm__ volatile("" ::"r"(&configuration) : "memory");
    _tile_loadconfig(&configuration);
}

void release_tiles() { _tile_release(); }

// The compiler does not know that loading a tile reads memory.
#define TILE_ZERO(tile) _tile_zero(tile)
#define TILE_LOAD(tile, from, bytes)       \
    do {                                   \
        __asm__ volatile("" ::: "memory"); \
        _tile_loadd(tile, from, bytes);    \
    } while (false)
#define TILE_STORE(tile, to, bytes) _tile_stored(tile, to, bytes)
#define TILE_DOT(sums, inputs, weights) _tile_dpbf16ps(sums, inputs, weights)

#include "supernet/blocks_avx512_impl.h"
#include "supernet/tiled_impl.h"

constexpr Kernels kKernels{"bf16-amx", {block_rule, false, true}, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_bf16_amx() { return &kKernels; }

}  // namespace nas_engine
