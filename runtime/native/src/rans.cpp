#include "rans.h"

#include <algorithm>

namespace dlf {
namespace {

// The state is in [kLow, kHigh) between symbols.
constexpr uint32_t kLow = 1u << 23;
constexpr uint32_t kHigh = kLow << 8;
constexpr uint32_t kSlotMask = kProbabilityOne - 1;
constexpr uint32_t kMore = 3;       // in the count of an escaped value's groups: 3, and more follows
constexpr uint32_t kMaxGroups = 11; // of 2 bits: raw < 2^21 for values up to kMaxSymbol in size

} // namespace

void RansEncoder::emit_while_at_least(uint32_t limit) {
    for (; state_ >= limit; state_ >>= 8)
        emitted_.push_back(static_cast<uint8_t>(state_));
}

void RansEncoder::put_symbol(const Cdf &cdf, int32_t symbol) {
    const uint32_t start = cdf.starts[static_cast<size_t>(symbol)];
    const uint32_t frequency = cdf.starts[static_cast<size_t>(symbol) + 1] - start;
    emit_while_at_least(frequency * (kHigh / kProbabilityOne));
    state_ = ((state_ / frequency) << 16) + state_ % frequency + start;
}

void RansEncoder::put_group(uint32_t group) {
    emit_while_at_least(kHigh >> 2);
    state_ = (state_ << 2) | group;
}

void RansEncoder::put(const Cdf &cdf, int32_t value) {
    const int32_t symbol = value + cdf.bound;
    if (0 <= symbol && symbol < cdf.escape()) {
        put_symbol(cdf, symbol);
        return;
    }
    const auto raw = static_cast<uint32_t>(symbol < 0 ? -2 * symbol - 1 : 2 * (symbol - cdf.escape()));
    uint32_t groups = 0;
    while (raw >> (2 * groups) != 0)
        ++groups;
    for (uint32_t i = groups; i-- > 0;)
        put_group((raw >> (2 * i)) & 3);
    put_group(groups % kMore);
    for (uint32_t i = groups / kMore; i-- > 0;)
        put_group(kMore);
    put_symbol(cdf, cdf.escape());
}

std::vector<uint8_t> RansEncoder::finish() {
    for (int shift = 24; shift >= 0; shift -= 8)
        emitted_.push_back(static_cast<uint8_t>(state_ >> shift));
    std::reverse(emitted_.begin(), emitted_.end());
    return std::move(emitted_);
}

RansDecoder::RansDecoder(const void *data, size_t size) : reader_(data, size, DLF_ERROR_TRUNCATED) {
    state_ = reader_.value<uint32_t>();
    require(kLow <= state_ && state_ < kHigh, DLF_ERROR_STREAM_CORRUPT);
}

int32_t RansDecoder::get_symbol(const Cdf &cdf) {
    const uint32_t slot = state_ & kSlotMask;
    const auto above = std::upper_bound(cdf.starts.begin(), cdf.starts.end(), slot); // never the first, 0
    const uint32_t start = above[-1];
    state_ = (*above - start) * (state_ >> 16) + slot - start;
    while (state_ < kLow)
        state_ = (state_ << 8) | reader_.byte();
    return static_cast<int32_t>(above - cdf.starts.begin()) - 1;
}

uint32_t RansDecoder::get_group() {
    const uint32_t group = state_ & 3;
    state_ >>= 2;
    if (state_ < kLow)
        state_ = (state_ << 8) | reader_.byte();
    return group;
}

int32_t RansDecoder::get_escaped(const Cdf &cdf) {
    uint32_t groups = 0;
    for (uint32_t part = kMore; part == kMore;) {
        part = get_group();
        groups += part;
        require(groups <= kMaxGroups, DLF_ERROR_STREAM_CORRUPT);
    }
    uint32_t raw = 0;
    for (uint32_t i = 0; i < groups; ++i)
        raw |= get_group() << (2 * i);
    // A count with a zero group at the end would be a second spelling of the same value.
    require(groups == 0 || raw >> (2 * (groups - 1)) != 0, DLF_ERROR_STREAM_CORRUPT);
    const int64_t half = raw >> 1;
    const int64_t value = (raw & 1 ? -half - 1 : half + cdf.escape()) - cdf.bound;
    require(-kMaxSymbol <= value && value <= kMaxSymbol, DLF_ERROR_STREAM_CORRUPT);
    return static_cast<int32_t>(value);
}

int32_t RansDecoder::get(const Cdf &cdf) {
    const int32_t symbol = get_symbol(cdf);
    return symbol == cdf.escape() ? get_escaped(cdf) : symbol - cdf.bound;
}

void RansDecoder::finish() {
    require(reader_.left() == 0, DLF_ERROR_TRAILING_BYTES);
    require(state_ == kLow, DLF_ERROR_STREAM_CORRUPT);
}

} // namespace dlf
