// The integer four-part prior: section 3 of docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "entropy/entropy_model.h"
#include "support/aligned.h"

namespace dlf {

// The group that a position codes at a step: its place in its 2x2 block, xor this step's number.
constexpr size_t kGroupSwap[kSteps] = {0, 3, 2, 1};
constexpr size_t coded_group(size_t step, size_t row, size_t col) { return (2 * (row % 2) + col % 2) ^ kGroupSwap[step]; }

// Runs the steps that have a network, 1 to 3. Its memory is reused from one image to the next.
class PriorRunner {
public:
    explicit PriorRunner(std::pmr::memory_resource *memory)
        : context_(memory), x_(memory), t_(memory), mixed_(memory), u_(memory), gated_(memory), residual_(memory),
          params_(memory), base_row_(memory) {}

    // Begins an image; nothing of it is coded yet.
    void begin(const EntropyModel &model, size_t height, size_t width);

    // The reconstruction in 1/256, saturated, [height * width][context_stride()].
    int16_t *context() { return context_.data(); }
    size_t context_stride() const { return stride_; }

    // Runs a step and computes, at each position, the parameters of the group that step `outputs_of` codes there.
    // Calls with all four values of `outputs_of` give every channel of every position.
    void run(size_t step) { run(step, step, step + 1); }
    void run_all_groups(size_t step) { run(step, 0, kSteps); }

    // C/4 scales, then C/4 means at each position; [height * width][params_stride()].
    const int16_t *params(size_t outputs_of) const { return &params_[outputs_of * height_ * width_ * params_stride_]; }
    size_t params_stride() const { return params_stride_; }

private:
    void run(size_t step, size_t begin_outputs, size_t end_outputs);
    void first_layer(const PackedBlock &block, const int16_t *x, const AlignedVector<int32_t> *base);
    void gated_row(const PackedBlock &block, size_t row, const int16_t *x);
    void last_row(const PackedBlock &block, size_t row, size_t outputs_of);

    const PriorTables *tables_ = nullptr;
    size_t channels_ = 0, height_ = 0, width_ = 0;
    size_t stride_ = 0, gated_stride_ = 0, params_stride_ = 0; // channels of a position, padded
    AlignedVector<int16_t> context_;                           // [r; common]
    AlignedVector<int16_t> x_;                                 // a block's input and output
    AlignedVector<int16_t> t_;                                 // conv1's result, with a border of zeros
    AlignedVector<int16_t> mixed_, u_, gated_, residual_;      // of a row
    AlignedVector<int16_t> params_;
    std::pmr::vector<const int32_t *> base_row_;
};

// CDF indexes (-1: not coded) and means (1/256) of a step (0 to 3), for every channel and position.
//  r                the reconstruction so far, [channels][height][width] in 1/256, 0 where nothing is coded; not read at step 0
//  indexes, means   receive [channels][height][width]
void prior_step(const EntropyModel &model, PriorRunner &runner, size_t step, const int32_t *r, size_t height, size_t width,
                int16_t *indexes, int16_t *means);

} // namespace dlf
