// Rows of steps that have one kind of term, whose setup would cost more than their sums; a part of kernels_impl.h.
// As in `run_tiles` there are `count` tiles, each `advance` pixels after the one before.

// 1x1 convolutions, perhaps with the identity that a shortcut is.
template <int L, int V, int P>
NAS_ENGINE_NOINLINE void run_pointwise(const StepView& step, int64_t y, int64_t x, int64_t count, int64_t advance,
                                       int64_t channel) {
    const TermView term = step.terms[0];
    const float* weights = term.packed + channel * term.inputs;
    const int64_t step_right = advance * term.source.padded * term.stride;
    const float* pixel = term.source.pixels + (y * term.source.pitch + x * term.source.padded) * term.stride;
    for (const int64_t end = x + count * advance; x < end; x += advance, pixel += step_right) {
        Tile<L, V, P> tile;
        tile.start(step.bias + channel);
        tile.add_inputs(pixel, term.source.step, weights, term.inputs);
        if (step.count > 1) tile.add_identity(step.terms[1], y, x, channel);
        tile.finish(step, y, x, channel);
    }
}

// K x K depthwise convolutions of stride 1 along a row.
template <int L, int P, int K>
NAS_ENGINE_NOINLINE void run_row_depthwise_of(const StepView& step, int64_t y, int64_t x, int64_t count,
                                              int64_t advance, int64_t channel) {
    const TermView term = step.terms[0];
    for (const int64_t end = x + count * advance; x < end; x += advance) {
        Tile<L, 1, P> tile;
        tile.start(step.bias + channel);
        tile.template add_row_depthwise<K>(term, y, x, channel, step.padded);
        tile.finish(step, y, x, channel);
    }
}

// One vector of channels after the other, so that its sums stay in registers over all rows of the window.
template <int L, int V, int P>
NAS_ENGINE_INLINE void run_row_depthwise(const StepView& step, int64_t y, int64_t x, int64_t count, int64_t advance,
                                         int64_t channel) {
    const int64_t kernel = step.terms[0].kernel;
    for (int64_t end = channel + V * L; channel < end; channel += L) {
        if (kernel == 3) run_row_depthwise_of<L, P, 3>(step, y, x, count, advance, channel);
        if (kernel == 5) run_row_depthwise_of<L, P, 5>(step, y, x, count, advance, channel);
        if (kernel == 7) run_row_depthwise_of<L, P, 7>(step, y, x, count, advance, channel);
    }
}
