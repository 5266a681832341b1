// A tile of outputs in registers; part of kernels_impl.h, inside its unnamed namespace.

// V vectors of output channels for P neighbours: pixels of a row, or the same pixel of P images.
template <int L, int V, int P>
struct Tile {
    Vector<L> sums[P][V];

    NAS_ENGINE_INLINE void start(const float* bias) {
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) sums[p][v] = load<L>(bias + v * L);
        }
    }

    NAS_ENGINE_INLINE void add_convolution(const TermView& term, int64_t y, int64_t x, int64_t channel,
                                           bool across_images) {
        const int64_t top = y * term.stride - term.padding, left = x * term.stride - term.padding;
        const Window rows(top, term.kernel, term.source.height);
        // Pixels of a row differ in what they may skip.
        const Window columns(across_images ? left : 0, term.kernel, across_images ? term.source.width : term.kernel);
        const int64_t taps = V * L * term.inputs;
        const float* weights = term.packed + channel * term.kernel * term.kernel * term.inputs +
                               (rows.skipped * term.kernel + columns.skipped) * taps;
        const float* window = term.source.pixels + (top + rows.skipped) * term.source.pitch +
                              (left + columns.skipped) * term.source.padded;
        for (int64_t row = 0; row < rows.count; ++row, window += term.source.pitch) {
            const float* pixel = window;
            for (int64_t column = 0; column < columns.count; ++column, pixel += term.source.padded) {
                add_inputs(pixel, term.source.step, weights, term.inputs);
                weights += V * L * term.inputs;
            }
            weights += (term.kernel - columns.count) * taps;
        }
    }

    // One tap of a convolution: each neighbour's inputs times `weights` [inputs, V * L].
    NAS_ENGINE_INLINE void add_inputs(const float* pixel, int64_t step, const float* weights, int64_t inputs) {
        _Pragma("GCC unroll 2") for (int64_t input = 0; input < inputs; ++input, weights += V * L) {
            Vector<L> weight[V];
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) weight[v] = load<L>(weights + v * L);
            NAS_ENGINE_UNROLL
            for (int p = 0; p < P; ++p) {
                const Vector<L> value = broadcast<L>(pixel[p * step + input]);
                NAS_ENGINE_UNROLL
                for (int v = 0; v < V; ++v) sums[p][v] += value * weight[v];
            }
        }
    }

    NAS_ENGINE_INLINE void add_depthwise(const TermView& term, int64_t y, int64_t x, int64_t channel, int64_t padded) {
        const float* weights = term.packed + channel;
        const float* window = window_of(term, y, x, channel);
        for (int64_t row = 0; row < term.kernel; ++row, window += term.source.pitch) {
            const float* pixel = window;
            for (int64_t column = 0; column < term.kernel; ++column, pixel += term.source.padded, weights += padded) {
                NAS_ENGINE_UNROLL
                for (int v = 0; v < V; ++v) {
                    const Vector<L> weight = load<L>(weights + v * L);
                    NAS_ENGINE_UNROLL
                    for (int p = 0; p < P; ++p) sums[p][v] += load<L>(pixel + p * term.source.step + v * L) * weight;
                }
            }
        }
    }

    // Stride 1 along a row: each input serves up to K neighbours.
    template <int K>
    NAS_ENGINE_INLINE void add_row_depthwise(const TermView& term, int64_t y, int64_t x, int64_t channel,
                                             int64_t padded) {
        const Window rows(y - term.padding, K, term.source.height);
        const float* line = window_of(term, y, x, channel) + rows.skipped * term.source.pitch;
        const float* weights = term.packed + rows.skipped * K * padded + channel;
        for (int64_t row = 0; row < rows.count; ++row, line += term.source.pitch, weights += K * padded) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) {
                Vector<L> weight[K];
                NAS_ENGINE_UNROLL
                for (int k = 0; k < K; ++k) weight[k] = load<L>(weights + k * padded + v * L);
                NAS_ENGINE_UNROLL
                for (int i = 0; i < P + K - 1; ++i) {
                    const Vector<L> input = load<L>(line + i * term.source.padded + v * L);
                    NAS_ENGINE_UNROLL
                    for (int k = 0; k < K; ++k) {
                        if (i - k >= 0 && i - k < P) sums[i - k][v] += input * weight[k];
                    }
                }
            }
        }
    }

    NAS_ENGINE_INLINE void add_pool(const TermView& term, int64_t y, int64_t x, int64_t channel, bool across_images) {
        const Source& source = term.source;
        const Window rows(y * term.stride - term.padding, term.kernel, source.height);
        const float* window = window_of(term, y, x, channel);
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            const int64_t left = (across_images ? x : x + p) * term.stride - term.padding;
            const Window columns(left, term.kernel, source.width);
            const float share = 1.0f / static_cast<float>(rows.count * columns.count);
            // Column by column, as `add_row_pool`: an image gets the same bits however many are computed together.
            Vector<L> total[V] = {};
            for (int64_t column = 0; column < term.kernel; ++column) {
                Vector<L> sum[V] = {};
                for (int64_t row = 0; row < term.kernel; ++row) {
                    const float* pixel = window + p * source.step + row * source.pitch + column * source.padded;
                    NAS_ENGINE_UNROLL
                    for (int v = 0; v < V; ++v) sum[v] += load<L>(pixel + v * L);
                }
                NAS_ENGINE_UNROLL
                for (int v = 0; v < V; ++v) total[v] += sum[v];
            }
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) sums[p][v] += share * total[v];
        }
    }

    // The 3x3 pool of neighbours in a row: the sum of a column serves three of them.
    NAS_ENGINE_INLINE void add_row_pool(const TermView& term, int64_t y, int64_t x, int64_t channel) {
        const Source& source = term.source;
        const Window rows(y - 1, 3, source.height);
        const float inner = 1.0f / static_cast<float>(3 * rows.count);
        const float* pixel = window_of(term, y, x, channel);
        NAS_ENGINE_UNROLL
        for (int v = 0; v < V; ++v, pixel += L) {
            const auto column = [&](int64_t index) {
                const float* top = pixel + index * source.padded;
                return load<L>(top) + load<L>(top + source.pitch) + load<L>(top + 2 * source.pitch);
            };
            Vector<L> left = column(0), middle = column(1);
            NAS_ENGINE_UNROLL
            for (int p = 0; p < P; ++p) {
                const Vector<L> right = column(p + 2);
                const Window columns(x + p - 1, 3, source.width);
                const float share = columns.count == 3 ? inner : 1.0f / static_cast<float>(rows.count * columns.count);
                sums[p][v] += share * (left + middle + right);
                left = middle;
                middle = right;
            }
        }
    }

    static NAS_ENGINE_INLINE const float* window_of(const TermView& term, int64_t y, int64_t x, int64_t channel) {
        return term.source.pixels + (y * term.stride - term.padding) * term.source.pitch +
               (x * term.stride - term.padding) * term.source.padded + channel;
    }

    NAS_ENGINE_INLINE void add_identity(const TermView& term, int64_t y, int64_t x, int64_t channel) {
        const float* pixel = term.source.pixels + y * term.source.pitch + x * term.source.padded + channel;
        const bool scaled = term.kind == PlanKind::kScaled;
        const float same = term.kind == PlanKind::kZero ? 0.0f : 1.0f;
        NAS_ENGINE_UNROLL
        for (int v = 0; v < V; ++v) {
            const Vector<L> scale = scaled ? load<L>(term.packed + channel + v * L) : broadcast<L>(same);
            NAS_ENGINE_UNROLL
            for (int p = 0; p < P; ++p) sums[p][v] += scale * load<L>(pixel + p * term.source.step + v * L);
        }
    }

    NAS_ENGINE_INLINE void finish(const StepView& step, int64_t y, int64_t x, int64_t channel) {
        // Copies: the compiler must assume that a store changes what `step` holds.
        const Target raw = step.raw, rectified = step.rectified;
        const int64_t at = x * step.padded + channel;
        if (step.relu6) clip();
        if (raw.pixels) write(raw.pixels + y * raw.pitch + at, raw.step);
        if (!rectified.pixels) return;
        rectify();
        write(rectified.pixels + y * rectified.pitch + at, rectified.step);
    }

  private:
    NAS_ENGINE_INLINE void clip() {
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) sums[p][v] = at_most(at_least(sums[p][v], 0.0f), 6.0f);
        }
    }

    NAS_ENGINE_INLINE void rectify() {
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) sums[p][v] = at_least(sums[p][v], 0.0f);
        }
    }

    NAS_ENGINE_INLINE void write(float* to, int64_t step) const {
        NAS_ENGINE_UNROLL
        for (int p = 0; p < P; ++p) {
            NAS_ENGINE_UNROLL
            for (int v = 0; v < V; ++v) store<L>(to + p * step + v * L, sums[p][v]);
        }
    }
};
