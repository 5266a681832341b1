// Convolutions by tiles of bfloat16, the rest of a step in float32; after kernels_impl.h and tile_registers.h, inside
// their unnamed namespace. Whoever includes this file defines run_view, most_images, configure_tiles, release_tiles and
//   TILE_ZERO(tile), TILE_LOAD(tile, from, bytes between rows), TILE_STORE(tile, to, bytes between rows),
//   TILE_DOT(sums, inputs, weights): sums [16, 16] += inputs [16, 2 n] x weights [n, 16, 2],
// of which 0-3 are sums, 4 and 6 inputs and weights with n = 16, 5 and 7 those with n = 8.

// A tiled term whose source has become bfloat16.
struct TiledTerm {
    const uint16_t* map;      // of the first input of the first output
    const uint16_t* weights;  // as `pack_tiled` leaves them
    const float* scale;
    int64_t kernel;
    int64_t run;    // numbers that a row of the kernel covers
    int64_t pitch;  // numbers of a row of positions
    int64_t step;   // numbers between the inputs of neighbouring outputs
};

// Eight numbers, to the nearest, to even in between; NaN stays.
NAS_ENGINE_INLINE void to_bfloat16(const float* from, uint16_t* to) {
    typedef uint32_t Words __attribute__((vector_size(32)));
    typedef uint16_t Halves __attribute__((vector_size(16)));
    const Vector<8> numbers = load<8>(from);
    const Words bits = reinterpret_cast<Words>(numbers);
    const Words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const Halves halves = __builtin_convertvector(numbers == numbers ? rounded : Words{} + 0x7fc0, Halves);
    __builtin_memcpy(to, &halves, sizeof halves);
}

// A source as a map of bfloat16: a border of zeros, channels filled up with zeros, rows of `width` positions.
NAS_ENGINE_NOINLINE void convert_source(const float* pixels, const PlanValue& value, const TiledShape& shape,
                                        uint16_t* map) {
    const int64_t padded = tiled_channels(value), border = shape.border * padded, row = shape.width * padded;
    // Not std::fill: the linker could take that of another instruction set.
    const auto clear = [](uint16_t* first, const uint16_t* last) {
        __builtin_memset(first, 0, static_cast<size_t>(last - first) * sizeof *first);
    };
    for (int64_t y = -shape.border; y < value.height + shape.border; ++y, map += row) {
        if (y < 0 || y >= value.height) {
            clear(map, map + row);
            continue;
        }
        clear(map, map + border);
        uint16_t* to = map + border;
        for (int64_t x = 0; x < value.width; ++x, to += padded) {
            const float* pixel = pixels + y * value.pitch() + x * value.padded;
            for (int64_t c = 0; c < value.padded; c += kLane) to_bfloat16(pixel + c, to + c);
            clear(to + value.channels, to + padded);  // of an image they hold anything
        }
        clear(to, map + row);
    }
}

// Tiles of M x 16 positions and N x 16 outputs for one run of inputs, `n` pairs at a time.
#define NAS_ENGINE_DOT_RUN(INPUTS, WEIGHTS, PAIRS)              \
    TILE_LOAD(WEIGHTS, weights, kRowBytes);                     \
    TILE_LOAD(INPUTS, pixels, bytes);                           \
    TILE_DOT(0, INPUTS, WEIGHTS);                               \
    if constexpr (M == 2) {                                     \
        TILE_LOAD(INPUTS, pixels + below, bytes);               \
        TILE_DOT(1, INPUTS, WEIGHTS);                           \
    }                                                           \
    if constexpr (N == 2) {                                     \
        TILE_LOAD(WEIGHTS, weights + next_outputs, kRowBytes);  \
        if constexpr (M == 2) TILE_DOT(3, INPUTS, WEIGHTS);     \
        if constexpr (M == 2) TILE_LOAD(INPUTS, pixels, bytes); \
        TILE_DOT(2, INPUTS, WEIGHTS);                           \
    }                                                           \
    weights += (PAIRS) * 2 * kTileOutputs

// Adds a term's products for M x 16 positions from `position` on and N x 16 outputs from `output` on to
// `sums` [positions, outputs]; the first term sets them.
template <int M, int N>
NAS_ENGINE_NOINLINE void run_tiled_block(const TiledTerm& term, bool is_first, int64_t position, int64_t output,
                                         int64_t outputs, float* sums) {
    constexpr int64_t kRowBytes = 64;
    const int64_t bytes = term.step * static_cast<int64_t>(sizeof(uint16_t)), below = kTileOutputs * term.step;
    const int64_t next_outputs = term.kernel * term.run * kTileOutputs;
    const uint16_t* row = term.map + position * term.step;
    const uint16_t* weights = term.weights + output * term.kernel * term.run;
    TILE_ZERO(0);
    if constexpr (M == 2) TILE_ZERO(1);
    if constexpr (N == 2) TILE_ZERO(2);
    if constexpr (M == 2 && N == 2) TILE_ZERO(3);
    for (int64_t y = 0; y < term.kernel; ++y, row += term.pitch) {
        const uint16_t* pixels = row;
        for (const uint16_t* const end = row + term.run / kTileInputs * kTileInputs; pixels < end;
             pixels += kTileInputs) {
            NAS_ENGINE_DOT_RUN(4, 6, 16);
        }
        if (term.run % kTileInputs) {
            NAS_ENGINE_DOT_RUN(5, 7, 8);
        }
    }
    alignas(64) float products[M * N][kTileOutputs][kTileOutputs];
    TILE_STORE(0, products[0], kRowBytes);
    if constexpr (M == 2) TILE_STORE(1, products[1], kRowBytes);
    if constexpr (N == 2) TILE_STORE(2, products[M], kRowBytes);
    if constexpr (M == 2 && N == 2) TILE_STORE(3, products[3], kRowBytes);
    constexpr int L = 8;
    for (int64_t n = 0; n < N; ++n) {
        for (int64_t half = 0; half < kTileOutputs; half += L) {
            const int64_t channel = output + n * kTileOutputs + half;
            const Vector<L> scale = load<L>(term.scale + channel);
            float* to = sums + position * outputs + channel;
            for (int64_t i = 0; i < M * kTileOutputs; ++i, to += outputs) {
                const float* from = products[i / kTileOutputs + n * M][i % kTileOutputs] + half;
                const Vector<L> product = scale * load<L>(from);
                store<L>(to, is_first ? product : load<L>(to) + product);
            }
        }
    }
}

// The sum of all terms for the positions of some rows: `sums` [positions, outputs].
void run_tiled_positions(const TiledTerm* terms, int64_t count, const TiledShape& shape, float* sums) {
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t output = 0; output < shape.outputs; output += 2 * kTileOutputs) {
            const bool two = output + kTileOutputs < shape.outputs;
            for (int64_t position = 0; position < shape.positions; position += 2 * kTileOutputs) {
                const auto run = position + kTileOutputs < shape.positions
                                     ? (two ? run_tiled_block<2, 2> : run_tiled_block<2, 1>)
                                     : (two ? run_tiled_block<1, 2> : run_tiled_block<1, 1>);
                run(terms[i], i == 0, position, output, shape.outputs, sums);
            }
        }
    }
}

// The tiled terms of a step for one image. Maps come first in the scratch memory, each source once.
struct TiledTerms {
    TiledTerm terms[kMaxStepTerms];
    int64_t count = 0;
    float* sums;

    TiledTerms(const PathPlan& plan, const PlanStep& step, const TiledShape& shape, const PackedPath& packed,
               const Arena& arena, int64_t slot) {
        uint16_t* free = reinterpret_cast<uint16_t*>(arena.scratch);
        const uint16_t* maps[kMaxStepTerms];
        int64_t values[kMaxStepTerms];
        for (int64_t i = step.first_term; i < step.first_term + step.terms; ++i) {
            const PlanTerm& term = plan.terms.data()[i];
            if (term.kind != PlanKind::kTiled) continue;
            const PlanValue& value = plan.values.data()[term.value];
            int64_t known = 0;
            while (known < count && values[known] != term.value) ++known;
            if (known == count) {
                convert_source(address_of(value, arena, slot), value, shape, free);
                maps[count] = free;
                free += shape.map_size(value);
            } else {
                maps[count] = maps[known];
            }
            values[count] = term.value;
            const int64_t padded = tiled_channels(value), inside = shape.border - term.padding;
            terms[count] = {maps[count] + inside * (shape.width + 1) * padded,
                            reinterpret_cast<const uint16_t*>(packed.terms[i]),
                            packed.own + term.packed,
                            term.kernel,
                            term.kernel * padded,
                            shape.width * padded,
                            term.stride * padded};
            ++count;
        }
        sums = reinterpret_cast<float*>(free);
    }

    // To the first output of the rows after the next `rows`.
    void advance(const TiledShape& shape, int64_t rows) {
        for (int64_t i = 0; i < count; ++i) terms[i].map += rows * shape.width * terms[i].step;
    }
};

// One step for the images in slots first..last-1. RUN: (view of one image, rows) -> computes terms that are not tiled.
template <typename Run>
void run_tiled(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
               int64_t last, Run run) {
    const TiledShape shape(plan.values, plan.terms.data() + step.first_term, step);
    for (int64_t slot = first; slot < last; ++slot) {
        TiledTerms tiled(plan, step, shape, packed, arena, slot);
        StepView view = view_of(plan, step, packed, arena, slot, 0);
        TermView* end = view.terms;  // of those that are not tiled
        for (const TermView* term = view.terms; term < view.terms + view.count; ++term) {
            if (term->kind != PlanKind::kTiled) *end++ = *term;
        }
        view.count = end - view.terms + 1;
        view.shape = StepShape::kAny;
        for (int64_t y = 0; y < step.height; y += shape.rows) {
            run_tiled_positions(tiled.terms, tiled.count, shape, tiled.sums);
            // What the tiles have added up is one more term: rows of it lie where those of an image would.
            const int64_t pitch = shape.width * shape.outputs;
            const Source source{tiled.sums - y * pitch, pitch, shape.outputs, step.height, step.width, shape.outputs};
            *end = {PlanKind::kIdentity, 1, 1, 0, step.channels, nullptr, source};
            run(view, Rows{y, y + shape.rows < step.height ? y + shape.rows : step.height});
            tiled.advance(shape, shape.rows);
        }
    }
}

void run_step(const PathPlan& plan, const PlanStep& step, const PackedPath& packed, const Arena& arena, int64_t first,
              int64_t last) {
    const auto run = [&](const StepView& view, Rows rows) { run_view(view, step.block, rows); };
    bool has_tiled = false;
    for (int64_t i = 0; i < step.terms; ++i) {
        has_tiled |= plan.terms.data()[step.first_term + i].kind == PlanKind::kTiled;
    }
    if (has_tiled) {
        configure_tiles();
        run_tiled(plan, step, packed, arena, first, last, run);
        release_tiles();
    } else {
        run_images(plan, step, packed, arena, first, last, most_images(step.block), run);
    }
}
