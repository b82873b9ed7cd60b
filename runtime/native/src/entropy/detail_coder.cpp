#include "entropy/detail_coder.h"

#include <algorithm>
#include <cmath>

#include "support/failure.h"

namespace dlf {
namespace {

constexpr int32_t kUnit = 256; // r and means are in 1/256

// One step's values, in the stream's order: [C/4][height][width].
struct Step {
    size_t number;
    const int16_t *indexes, *means;
    int32_t *symbols;
};

class FourSteps {
public:
    FourSteps(const EntropyModel &model, size_t height, size_t width, DetailScratch &scratch)
        : model_(model), scratch_(scratch), height_(height), width_(width), positions_(height * width),
          group_size_(model.channels / kGroups) {
        scratch.symbols.resize(model.channels * positions_);
        scratch.indexes.resize(model.channels * positions_);
        scratch.means.resize(group_size_ * positions_);
        scratch.prior.begin(model, height, width);
    }

    // code(step) sets the symbols from indexes and means; those of index -1 to 0. y_hat may be NULL.
    template <class Code> void run(float *y_hat, Code code) {
        for (size_t number = 0; number < kSteps; ++number) {
            const size_t begin = number * group_size_ * positions_;
            int16_t *indexes = &scratch_.indexes[begin];
            const Step step{number, indexes, scratch_.means.data(), &scratch_.symbols[begin]};
            number == 0 ? first_params(indexes) : params(number, indexes);
            code(step);
            if (y_hat != nullptr)
                reconstruct(step, y_hat);
            if (number + 1 < kSteps)
                update_context(step);
        }
    }

    // Calls visit(index in the step's arrays, index in [C][height][width], index in [C][5][5]) in the stream's order.
    template <class Visit> void for_each(size_t step, Visit visit) const {
        for (size_t c = 0, at = 0; c < group_size_; ++c) {
            for (size_t row = 0; row < height_; ++row) {
                size_t channel[2] = {}, table[2] = {};
                for (const size_t parity : {size_t{0}, size_t{1}}) {
                    channel[parity] = coded_group(step, row, parity) * group_size_ + c;
                    table[parity] = (channel[parity] * kClasses + position_class(row, height_)) * kClasses;
                }
                for (size_t col = 0; col < width_; ++col, ++at)
                    visit(at, (channel[col % 2] * height_ + row) * width_ + col, table[col % 2] + position_class(col, width_));
            }
        }
    }

private:
    void first_params(int16_t *indexes) {
        for_each(0, [&](size_t at, size_t, size_t table) {
            indexes[at] = model_.indexes[table];
            scratch_.means[at] = model_.means[table];
        });
    }

    void params(size_t step, int16_t *indexes) {
        scratch_.prior.run(step);
        const int16_t *params = scratch_.prior.params(step);
        for (size_t position = 0; position < positions_; ++position, params += scratch_.prior.params_stride()) {
            for (size_t c = 0; c < group_size_; ++c) {
                indexes[c * positions_ + position] = model_.index_of_scale(params[c]);
                scratch_.means[c * positions_ + position] = params[group_size_ + c];
            }
        }
    }

    void update_context(const Step &step) {
        int16_t *context = scratch_.prior.context();
        for (size_t position = 0; position < positions_; ++position, context += scratch_.prior.context_stride()) {
            int16_t *group = context + coded_group(step.number, position / width_, position % width_) * group_size_;
            for (size_t c = 0; c < group_size_; ++c) {
                const size_t at = c * positions_ + position;
                group[c] = static_cast<int16_t>(std::clamp<int32_t>(r(step, at), INT16_MIN, INT16_MAX));
            }
        }
    }

    void reconstruct(const Step &step, float *y_hat) const {
        for_each(step.number, [&](size_t at, size_t in_map, size_t table) {
            y_hat[in_map] = static_cast<float>(r(step, at)) / kUnit * model_.q[table];
        });
    }

    static int32_t r(const Step &step, size_t at) { return kUnit * step.symbols[at] + step.means[at]; }

    const EntropyModel &model_;
    DetailScratch &scratch_;
    size_t height_, width_, positions_, group_size_;
};

// Rounds to the nearest integer, ties to even, in any rounding mode, and clamps to what a stream can hold.
int32_t quantise(float x) {
    if (!(x > -kMaxSymbol)) // or NaN: 0/q is NaN if subnormal numbers are flushed to zero
        return -kMaxSymbol;
    if (x >= kMaxSymbol)
        return kMaxSymbol;
    const auto whole = static_cast<int32_t>(x);
    const int32_t low = static_cast<float>(whole) > x ? whole - 1 : whole; // floor, without a call
    const float above = x - static_cast<float>(low);
    return above > 0.5f || (above == 0.5f && low % 2 != 0) ? low + 1 : low;
}

} // namespace

size_t encode_detail(const EntropyModel &model, const float *y, size_t height, size_t width, float *y_hat,
                     DetailScratch &scratch) {
    require(std::all_of(y, y + model.channels * height * width, [](float value) { return std::isfinite(value); }),
            DLF_ERROR_INVALID_ARGUMENT);
    FourSteps steps(model, height, width, scratch);
    steps.run(y_hat, [&](const Step &step) {
        steps.for_each(step.number, [&](size_t at, size_t in_map, size_t table) {
            step.symbols[at] =
                step.indexes[at] < 0 ? 0 : quantise(y[in_map] / model.q[table] - static_cast<float>(step.means[at]) / kUnit);
        });
    });
    return rans_encode(model.cdfs, scratch.symbols.data(), scratch.indexes.data(), scratch.symbols.size(), scratch.stream);
}

size_t detail_bound(const EntropyModel &model, size_t height, size_t width) {
    // An escape takes at most 16 bits, the groups of the count 8 and the groups of the value 22: 46, and rounding less than 0.1.
    constexpr size_t kStateBytes = 4, kMaxSymbolBytes = 6;
    return kStateBytes + kMaxSymbolBytes * model.channels * height * width;
}

void decode_detail(const EntropyModel &model, RansDecoder decoder, size_t height, size_t width, float *y_hat,
                   DetailScratch &scratch) {
    const size_t step_size = model.channels / kGroups * height * width;
    FourSteps(model, height, width, scratch).run(y_hat, [&](const Step &step) {
        decoder.get(model.cdfs, step.indexes, step_size, step.symbols);
    });
    decoder.finish();
}

} // namespace dlf
