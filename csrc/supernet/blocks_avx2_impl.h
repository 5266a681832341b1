// Blocks of output channels in registers of 8 floats; after kernels_impl.h, inside its unnamed namespace.

int64_t block_rule(int64_t padded, int64_t /*width*/) { return padded >= 16 ? 16 : 8; }

void run_view(const StepView& view, int64_t block, Rows rows) {
    int64_t channel = 0;
    if (view.shape == StepShape::kRowDepthwise) block = 8;  // a vector of channels needs all registers
    for (; channel + block <= view.padded; channel += block) {
        if (block == 16) run_block<8, 2>(view, channel, rows);
        if (block == 8) run_block<8, 1>(view, channel, rows);
    }
    if (channel < view.padded) run_block<8, 1>(view, channel, rows);
}

// Images that one tile can hold.
int64_t most_images(int64_t block) { return most_neighbours(static_cast<int>(block / 8)); }
