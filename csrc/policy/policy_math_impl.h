// Products and activation functions for blocks of `kPolicyBlock` samples, each feature a row with a column a sample.
#pragma once

#include <vector>

#include "policy/policy_kernels.h"
#include "vectors_impl.h"

namespace nas_engine {
namespace {

using Pack = Vector<8>;

constexpr int64_t kLanes = 8;
constexpr int kPacks = kPolicyBlock / kLanes;

using Floats = std::vector<float>;

// e^x within some units in the last place (the polynomial of Moshier's Cephes library, expf); 0 below e^-87.
NAS_ENGINE_INLINE Pack exponential(Pack x) {
    typedef uint32_t Bits __attribute__((vector_size(32)));
    constexpr float kToInteger = 12582912.0F;  // 1.5 * 2^23: the sum's low bits are the nearest integer
    const Pack bounded = at_most(at_least(x, -87.3F), 88.3F);
    const Pack shifted = bounded * 1.44269504F + kToInteger;
    const Pack exponent = shifted - kToInteger;
    const Pack rest = bounded - exponent * 0.693359375F + exponent * 2.12194440e-4F;
    Pack sum = broadcast<8>(1.9875691500e-4F);
    for (const float coefficient :
         {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F, 1.0F, 1.0F})
        sum = sum * rest + coefficient;
    const Pack result = (Pack)((Bits)sum + ((Bits)shifted << 23));
    return x == x ? (x < -87.3F ? Pack{} : result) : x;
}

NAS_ENGINE_INLINE Pack sigmoid(Pack x) { return 1.0F / (1.0F + exponential(-x)); }

NAS_ENGINE_INLINE Pack hyperbolic_tangent(Pack x) { return 2.0F * sigmoid(2.0F * x) - 1.0F; }

struct Matrix {
    const float* data;
    int64_t row_step, column_step;
};

template <int R>
NAS_ENGINE_INLINE void multiply_rows(float* out, Matrix matrix, int64_t row, int64_t depth, const float* block) {
    Pack sums[R][kPacks];
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < kPacks; ++p) sums[r][p] = load<8>(out + (row + r) * kPolicyBlock + p * kLanes);
    for (int64_t d = 0; d < depth; ++d) {
        const float* column = matrix.data + row * matrix.row_step + d * matrix.column_step;
        for (int r = 0; r < R; ++r)
            for (int p = 0; p < kPacks; ++p)
                sums[r][p] +=
                    broadcast<8>(column[r * matrix.row_step]) * load<8>(block + d * kPolicyBlock + p * kLanes);
    }
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < kPacks; ++p) store<8>(out + (row + r) * kPolicyBlock + p * kLanes, sums[r][p]);
}

// out [rows] += matrix [rows, depth] * block [depth], where a row of a block has a float for each sample.
void multiply(float* out, Matrix matrix, int64_t rows, int64_t depth, const float* block) {
    int64_t row = 0;
    for (; row + 6 <= rows; row += 6) multiply_rows<6>(out, matrix, row, depth, block);
    for (; row + 2 <= rows; row += 2) multiply_rows<2>(out, matrix, row, depth, block);
    for (; row < rows; ++row) multiply_rows<1>(out, matrix, row, depth, block);
}

// Blocks at a distance of `step` floats.
struct Blocks {
    const float* data;
    int64_t step;
};

template <int R, int P>
NAS_ENGINE_INLINE void correlate_tile(float* out, int64_t width, Blocks left, Blocks right, int64_t count) {
    Pack sums[R][P];
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p) sums[r][p] = load<8>(out + r * width + p * kLanes);
    for (int64_t i = 0; i < count; ++i)
        for (int64_t sample = 0; sample < kPolicyBlock; ++sample)
            for (int r = 0; r < R; ++r)
                for (int p = 0; p < P; ++p)
                    sums[r][p] += broadcast<8>(left.data[i * left.step + r * kPolicyBlock + sample]) *
                                  load<8>(right.data + i * right.step + sample * width + p * kLanes);
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p) store<8>(out + r * width + p * kLanes, sums[r][p]);
}

template <int R>
void correlate_rows(float* out, int64_t width, Blocks left, Blocks right, int64_t count) {
    int64_t column = 0;
    const auto from = [&](int64_t at) { return Blocks{right.data + at, right.step}; };
    for (; column + 3 * kLanes <= width; column += 3 * kLanes)
        correlate_tile<R, 3>(out + column, width, left, from(column), count);
    for (; column < width; column += kLanes) correlate_tile<R, 1>(out + column, width, left, from(column), count);
}

// out [rows, width] += the sum over `count` blocks and their samples of left [rows] x right, whose blocks lie as a row
// of `width` floats, whole vectors, for each sample.
void correlate(float* out, int64_t rows, int64_t width, Blocks left, Blocks right, int64_t count) {
    int64_t row = 0;
    const auto from = [&](int64_t at) { return Blocks{left.data + at * kPolicyBlock, left.step}; };
    for (; row + 4 <= rows; row += 4) correlate_rows<4>(out + row * width, width, from(row), right, count);
    for (; row < rows; ++row) correlate_rows<1>(out + row * width, width, from(row), right, count);
}

}  // namespace
}  // namespace nas_engine
