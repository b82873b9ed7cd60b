// Byte-wise rANS with a 32-bit state and 16-bit probabilities: section 2 of docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "byte_reader.h"

namespace dlf {

constexpr uint32_t kProbabilityOne = 1u << 16;
constexpr int32_t kMaxSymbol = 1 << 20; // in size; what a stream can hold

// Symbols 0..2*bound stand for the values -bound..bound, symbol 2*bound+1 is the escape.
struct Cdf {
    int32_t bound;
    std::vector<uint32_t> starts; // one more than symbols: symbol s has the slots starts[s] .. starts[s+1]-1

    int32_t escape() const { return 2 * bound + 1; }
};

// Takes values last to first, since the decoder reads forwards what was written last.
class RansEncoder {
public:
    void put(const Cdf &cdf, int32_t value); // |value| <= kMaxSymbol
    std::vector<uint8_t> finish();           // the stream

private:
    void put_symbol(const Cdf &cdf, int32_t symbol);
    void put_group(uint32_t group);
    void emit_while_at_least(uint32_t limit);

    uint32_t state_ = 1u << 23;
    std::vector<uint8_t> emitted_; // the stream from its end
};

// Reads untrusted bytes; throws a Failure for a stream that the encoder does not write.
class RansDecoder {
public:
    RansDecoder(const void *data, size_t size);
    int32_t get(const Cdf &cdf);
    void finish(); // checks that the stream ends here

private:
    int32_t get_symbol(const Cdf &cdf);
    uint32_t get_group();
    int32_t get_escaped(const Cdf &cdf);

    ByteReader reader_;
    uint32_t state_;
};

} // namespace dlf
