// Winograd convolution; a part of kernels_impl.h. Some tiles at a time are transformed, multiplied frequency by
// frequency (sums over input channels and over all terms of the step), and transformed back while they are in cache.

// Where tile `index` of the images from `first` on lies.
struct TilePlace {
    int64_t slot, y, x;
};

NAS_ENGINE_INLINE TilePlace place_of(int64_t index, const PlanStep& step, int64_t first) {
    const int64_t across = (step.width + kTile - 1) / kTile, down = (step.height + kTile - 1) / kTile;
    const int64_t in_image = index % (across * down);
    return {first + index / (across * down), in_image / across * kTile, in_image % across * kTile};
}

// B^T d of one line (Lavin & Gray 2016, section 4.3).
template <typename V>
NAS_ENGINE_INLINE void transform_input_line(const V (&d)[6], V (&t)[6]) {
    const V even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1];
    const V near = d[4] - d[2], far = 2.0f * (d[3] - d[1]);
    t[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = near + far;
    t[4] = near - far;
    t[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

// A^T m of one line.
template <typename V>
NAS_ENGINE_INLINE void transform_output_line(const V (&m)[6], V (&o)[4]) {
    const V sum = m[1] + m[2], difference = m[1] - m[2], far_sum = m[3] + m[4], far_difference = m[3] - m[4];
    o[0] = m[0] + sum + far_sum;
    o[1] = difference + 2.0f * far_difference;
    o[2] = sum + 4.0f * far_sum;
    o[3] = difference + 8.0f * far_difference + m[5];
}

// Writes a tile's transform [36, stride] for 8 channels. Pixels beyond the edge are zero.
void transform_input(const float* pixels, const PlanValue& value, int64_t y, int64_t x, float* to, int64_t stride) {
    Vector<8> lines[6][6];
    const bool inside = y + 5 <= value.height && x + 5 <= value.width;  // the border is there to be read
    NAS_ENGINE_UNROLL
    for (int j = 0; j < 6; ++j) {
        Vector<8> column[6], transformed[6];
        NAS_ENGINE_UNROLL
        for (int i = 0; i < 6; ++i) {
            const int64_t row = y - 1 + i, at = x - 1 + j;
            const bool there = inside || (row <= value.height && at <= value.width);
            column[i] = there ? load<8>(pixels + row * value.pitch() + at * value.padded) : Vector<8>{};
        }
        transform_input_line(column, transformed);
        NAS_ENGINE_UNROLL
        for (int i = 0; i < 6; ++i) lines[i][j] = transformed[i];
    }
    NAS_ENGINE_UNROLL
    for (int i = 0; i < 6; ++i) {
        Vector<8> transformed[6];
        transform_input_line(lines[i], transformed);
        NAS_ENGINE_UNROLL
        for (int j = 0; j < 6; ++j) store<8>(to + (i * 6 + j) * stride, transformed[j]);
    }
}

// Transforms 8 channels of a tile's products [36, stride] back, adds the bias and writes what lies in the image.
void transform_output(const float* from, int64_t stride, const float* bias, const StepView& step, int64_t y, int64_t x,
                      int64_t channel) {
    Vector<8> lines[4][6];
    NAS_ENGINE_UNROLL
    for (int j = 0; j < 6; ++j) {
        Vector<8> column[6], transformed[4];
        NAS_ENGINE_UNROLL
        for (int i = 0; i < 6; ++i) column[i] = load<8>(from + (i * 6 + j) * stride);
        transform_output_line(column, transformed);
        NAS_ENGINE_UNROLL
        for (int i = 0; i < 4; ++i) lines[i][j] = transformed[i];
    }
    const int64_t rows = step.height - y < kTile ? step.height - y : kTile;
    const int64_t columns = step.width - x < kTile ? step.width - x : kTile;
    for (int64_t i = 0; i < rows; ++i) {
        Vector<8> transformed[4];
        transform_output_line(lines[i], transformed);
        for (int64_t j = 0; j < columns; ++j) {
            Tile<8, 1, 1> pixel{{{transformed[j] + load<8>(bias)}}};
            pixel.finish(step, y + i, x + j, channel);
        }
    }
}

// P tiles times one block of V * L output channels: [inputs] x [inputs, V * L], added up over the terms.
struct Factor {
    const float* tiles;    // [36, kTilesAtOnce, padded]
    const float* weights;  // [36, inputs, block]
    int64_t padded, inputs;
};

template <int L, int V, int P>
NAS_ENGINE_INLINE void multiply_frequency(const Factor* factors, int64_t count, int64_t frequency, int64_t tile,
                                          float* products) {
    Vector<L> sums[P][V] = {};
    for (int64_t i = 0; i < count; ++i) {
        const Factor& factor = factors[i];
        const float* values = factor.tiles + (frequency * kTilesAtOnce + tile) * factor.padded;
        const float* weights = factor.weights + frequency * factor.inputs * V * L;
        _Pragma("GCC unroll 2") for (int64_t input = 0; input < factor.inputs; ++input, weights += V * L) {
            Vector<L> weight[V];
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) weight[v] = load<L>(weights + v * L);
            NAS_ENGINE_UNROLL
            for (int p = 0; p < P; ++p) {
                const Vector<L> value = broadcast<L>(values[p * factor.padded + input]);
                NAS_ENGINE_UNROLL
                for (int v = 0; v < V; ++v) sums[p][v] += value * weight[v];
            }
        }
    }
    float* to = products + (frequency * kTilesAtOnce + tile) * V * L;
    NAS_ENGINE_UNROLL
    for (int p = 0; p < P; ++p) {
        NAS_ENGINE_UNROLL
        for (int v = 0; v < V; ++v) store<L>(to + (p * V + v) * L, sums[p][v]);
    }
}

template <int L, int V, int P>
void multiply_tiles(const Factor* factors, int64_t count, int64_t tile, float* products) {
    for (int64_t frequency = 0; frequency < kFrequencies; ++frequency) {
        multiply_frequency<L, V, P>(factors, count, frequency, tile, products);
    }
}

using MultiplyTiles = void (*)(const Factor*, int64_t, int64_t, float*);

template <int L, int V, int P>
void fill_multipliers(MultiplyTiles* entries) {
    entries[P - 1] = multiply_tiles<L, V, P>;
    if constexpr (P > 1) fill_multipliers<L, V, P - 1>(entries);
}

template <int L, int V>
void multiply_all(const Factor* factors, int64_t count, int64_t tiles, float* products) {
    constexpr int kMost = most_neighbours(V);
    MultiplyTiles by_tiles[kMost];
    fill_multipliers<L, V, kMost>(by_tiles);
    const Shares shares(tiles, kMost);
    for (int64_t i = 0; i < shares.count; ++i) {
        by_tiles[shares.size(i) - 1](factors, count, shares.first(i), products);
    }
}

// MULTIPLY: block of channels -> multiply_all for it.
template <typename Multiply>
void run_winograd(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena,
                  int64_t first, int64_t last, Multiply multiply) {
    const int64_t across = (step.width + kTile - 1) / kTile, down = (step.height + kTile - 1) / kTile;
    const int64_t all = across * down * (last - first);
    Factor factors[kMaxStepTerms];
    StepView view;
    for (int64_t start = 0; start < all; start += kTilesAtOnce) {
        const int64_t tiles = all - start < kTilesAtOnce ? all - start : kTilesAtOnce;
        float* free = arena.scratch;
        for (int64_t i = 0; i < step.terms; ++i) {
            const PlanTerm& term = plan.terms.data()[step.first_term + i];
            const PlanValue& value = plan.values.data()[term.value];
            factors[i] = {free, packed.terms[step.first_term + i], value.padded, term.inputs};
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const TilePlace place = place_of(start + tile, step, first);
                const float* pixels = address_of(value, arena, place.slot);
                for (int64_t channel = 0; channel < value.padded; channel += 8) {
                    transform_input(pixels + channel, value, place.y, place.x, free + tile * value.padded + channel,
                                    kTilesAtOnce * value.padded);
                }
            }
            free += kFrequencies * kTilesAtOnce * value.padded;
        }
        for (int64_t channel = 0; channel < step.padded; channel += step.block) {
            const int64_t block = step.padded - channel < step.block ? step.padded - channel : step.block;
            multiply(block, factors, step.terms, tiles, free);
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const TilePlace place = place_of(start + tile, step, first);
                aim(view, plan, step, arena, place.slot, 0);
                for (int64_t c = 0; c < block; c += 8) {
                    transform_output(free + tile * block + c, kTilesAtOnce * block,
                                     packed.own + step.bias + channel + c, view, place.y, place.x, channel + c);
                }
            }
            for (int64_t i = 0; i < step.terms; ++i) factors[i].weights += kFrequencies * factors[i].inputs * block;
        }
    }
}
