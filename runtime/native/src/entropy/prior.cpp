#include "entropy/prior.h"

#include <algorithm>

namespace dlf {
namespace {

size_t padded(size_t channels) { return (channels + kMaxPanel - 1) / kMaxPanel * kMaxPanel; }

int16_t sat16(int32_t x) { return static_cast<int16_t>(std::clamp<int32_t>(x, INT16_MIN, INT16_MAX)); }

} // namespace

void PriorRunner::begin(const EntropyModel &model, size_t height, size_t width) {
    const size_t d = 2 * model.channels;
    if (tables_ != &model.prior || height_ != height || width_ != width) {
        tables_ = nullptr; // until all memory is allocated, which may fail
        channels_ = model.channels;
        height_ = height;
        width_ = width;
        stride_ = padded(d);
        gated_stride_ = padded(2 * d);
        params_stride_ = padded(d / kGroups);
        const size_t positions = height * width;
        for (AlignedVector<int16_t> *map : {&context_, &x_})
            map->assign(positions * stride_, 0);
        t_.assign((height + 2) * (width + 2) * stride_, 0);
        mixed_.resize(width * stride_);
        u_.resize(width * stride_);
        gated_.resize(width * gated_stride_);
        residual_.resize(width * params_stride_);
        params_.resize(kSteps * positions * params_stride_);
        base_row_.resize(width);
        tables_ = &model.prior;
    }
    int16_t *at = context_.data();
    for (size_t row = 0; row < height; ++row) {
        for (size_t col = 0; col < width; ++col, at += stride_) {
            std::fill_n(at, channels_, int16_t{0});
            for (size_t c = 0; c < channels_; ++c)
                at[channels_ + c] = model.common[model.table_index(c, row, col, height, width)];
        }
    }
}

void PriorRunner::run(size_t step, size_t begin_outputs, size_t end_outputs) {
    const PackedBlock &adaptor = tables_->adaptors[step - 1];
    first_layer(adaptor, context_.data(), &tables_->base[step - 1]);
    const auto whole_rows = [&](const PackedBlock &block, const int16_t *x) {
        for (size_t row = 0; row < height_; ++row) {
            gated_row(block, row, x);
            tables_->kernels->add(block.conv_out[0].view(), {gated_.data(), gated_stride_}, {u_.data(), stride_}, width_,
                                  {&x_[row * width_ * stride_], stride_});
        }
    };
    whole_rows(adaptor, context_.data());
    for (const PackedBlock &block : tables_->shared) {
        first_layer(block, x_.data(), nullptr);
        if (&block != &tables_->shared.back()) {
            whole_rows(block, x_.data());
            continue;
        }
        for (size_t row = 0; row < height_; ++row) {
            gated_row(block, row, x_.data());
            for (size_t outputs_of = begin_outputs; outputs_of < end_outputs; ++outputs_of)
                last_row(block, row, outputs_of);
        }
    }
}

// Computes conv1 on the whole map, into t_.
void PriorRunner::first_layer(const PackedBlock &block, const int16_t *x, const AlignedVector<int32_t> *base) {
    const LayerView layer = block.conv1.view();
    for (size_t row = 0; row < height_; ++row) {
        const int32_t *const *base_row = nullptr;
        if (base != nullptr) {
            for (size_t col = 0; col < width_; ++col)
                base_row_[col] =
                    base->data() + (position_class(row, height_) * kClasses + position_class(col, width_)) * layer.outputs;
            base_row = base_row_.data();
        }
        tables_->kernels->leaky(layer, {x + row * width_ * stride_, stride_}, base_row, width_,
                                {&t_[((row + 1) * (width_ + 2) + 1) * stride_], stride_});
    }
}

// Computes the input of conv_out from conv1's result, for a row; x is the block's input.
void PriorRunner::gated_row(const PackedBlock &block, size_t row, const int16_t *x) {
    const PriorKernels &kernels = *tables_->kernels;
    const size_t t_row = (width_ + 2) * stride_;
    kernels.depthwise(block.depth_conv.view(), {&t_[row * t_row], stride_}, t_row, width_, {mixed_.data(), stride_});
    kernels.add(block.conv2.view(), {mixed_.data(), stride_}, {x + row * width_ * stride_, stride_}, width_,
                {u_.data(), stride_});
    kernels.gate(block.conv_a.view(), block.conv_b.view(), {u_.data(), stride_}, width_, {gated_.data(), gated_stride_});
}

// Computes conv_out of the last block. In a row, every second position codes the same group.
void PriorRunner::last_row(const PackedBlock &block, size_t row, size_t outputs_of) {
    const size_t size = channels_ / kGroups;
    int16_t *out = &params_[(outputs_of * height_ + row) * width_ * params_stride_];
    for (size_t parity = 0; parity < 2; ++parity) {
        const size_t group = coded_group(outputs_of, row, parity);
        for (size_t col = parity; col < width_; col += 2) {
            const int16_t *u = &u_[col * stride_ + group * size];
            int16_t *addend = &residual_[col * params_stride_];
            std::copy_n(u, size, addend);
            std::copy_n(u + channels_, size, addend + size);
        }
        tables_->kernels->add(block.conv_out[group].view(), {&gated_[parity * gated_stride_], 2 * gated_stride_},
                              {&residual_[parity * params_stride_], 2 * params_stride_}, width_ / 2,
                              {out + parity * params_stride_, 2 * params_stride_});
    }
}

void prior_step(const EntropyModel &model, PriorRunner &runner, size_t step, const int32_t *r, size_t height, size_t width,
                int16_t *indexes, int16_t *means) {
    const size_t channels = model.channels, size = channels / kGroups;
    const auto for_each = [&](auto visit) { // visit(channel, row, col, entry of [C][height][width])
        for (size_t c = 0, at = 0; c < channels; ++c)
            for (size_t row = 0; row < height; ++row)
                for (size_t col = 0; col < width; ++col, ++at)
                    visit(c, row, col, at);
    };
    if (step == 0) {
        for_each([&](size_t c, size_t row, size_t col, size_t at) {
            const size_t entry = model.table_index(c, row, col, height, width);
            indexes[at] = model.indexes[entry];
            means[at] = model.means[entry];
        });
        return;
    }
    runner.begin(model, height, width);
    for_each([&](size_t c, size_t row, size_t col, size_t at) {
        runner.context()[(row * width + col) * runner.context_stride() + c] = sat16(r[at]);
    });
    runner.run_all_groups(step);
    for_each([&](size_t c, size_t row, size_t col, size_t at) {
        size_t outputs_of = 0;
        while (coded_group(outputs_of, row, col) != c / size)
            ++outputs_of;
        const int16_t *params = runner.params(outputs_of) + (row * width + col) * runner.params_stride() + c % size;
        indexes[at] = model.index_of_scale(params[0]);
        means[at] = params[size];
    });
}

} // namespace dlf
