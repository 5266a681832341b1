// The kernels of kernels_bf16_amx.cpp with tile registers in memory: the same sums on processors without AMX.
#include <cstring>

namespace nas_engine {
namespace {
constexpr int kAccumulators = 12;
}
}  // namespace nas_engine
#include "supernet/kernels_impl.h"

namespace nas_engine {
namespace {

#include "supernet/tile_registers.h"

typedef uint32_t Words __attribute__((vector_size(32)));

struct TileRegister {
    alignas(64) char rows[16][64];
};
thread_local TileRegister tile_registers[kTileRegisters];

void configure_tiles() {}
void release_tiles() {}

void load_tile(int tile, const void* from, int64_t bytes) {
    for (int i = 0; i < kTileRows[tile]; ++i) {
        std::memcpy(tile_registers[tile].rows[i], static_cast<const char*>(from) + i * bytes,
                    static_cast<size_t>(kTileRowBytes[tile]));
    }
}

void store_tile(int tile, void* to, int64_t bytes) {
    for (int i = 0; i < kTileRows[tile]; ++i) {
        std::memcpy(static_cast<char*>(to) + i * bytes, tile_registers[tile].rows[i],
                    static_cast<size_t>(kTileRowBytes[tile]));
    }
}

// TDPBF16PS (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2): the products of numbers with even
// and with odd index of each pair are summed apart, then both are added. Only denormals differ, which it takes for 0.
NAS_ENGINE_NOINLINE void dot_tiles(int sums, int inputs, int weights) {
    for (int i = 0; i < kTileRows[inputs]; ++i) {
        float* const row = reinterpret_cast<float*>(tile_registers[sums].rows[i]);
        Vector<8> left[2] = {}, right[2] = {};  // sums of the products of even and of odd numbers
        for (int pair = 0; pair < kTileRows[weights]; ++pair) {
            uint32_t bits;
            std::memcpy(&bits, tile_registers[inputs].rows[i] + pair * sizeof bits, sizeof bits);
            const float* from = reinterpret_cast<const float*>(tile_registers[weights].rows[pair]);
            const auto number = [](Words words) { return reinterpret_cast<Vector<8>>(words); };
            const Vector<8> odd = number(Words{} + (bits & 0xffff0000)), even = number(Words{} + (bits << 16));
            const Words first = reinterpret_cast<Words>(load<8>(from)),
                        last = reinterpret_cast<Words>(load<8>(from + 8));
            left[0] += even * number(first << 16);
            right[0] += even * number(last << 16);
            left[1] += odd * number(first & 0xffff0000);
            right[1] += odd * number(last & 0xffff0000);
        }
        store<8>(row, load<8>(row) + (left[0] + left[1]));
        store<8>(row + 8, load<8>(row + 8) + (right[0] + right[1]));
    }
}

#define TILE_ZERO(tile) std::memset(&tile_registers[tile], 0, sizeof(TileRegister))
#define TILE_LOAD(tile, from, bytes) load_tile(tile, from, bytes)
#define TILE_STORE(tile, to, bytes) store_tile(tile, to, bytes)
#define TILE_DOT(sums, inputs, weights) dot_tiles(sums, inputs, weights)

#include "supernet/blocks_avx2_impl.h"
#include "supernet/tiled_impl.h"

constexpr Kernels kKernels{"bf16-avx2", {block_rule, false, true}, run_step, moments, pooled};

}  // namespace

const Kernels* kernels_bf16_avx2() { return &kKernels; }

}  // namespace nas_engine
