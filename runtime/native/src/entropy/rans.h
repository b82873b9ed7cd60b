// Byte-wise rANS with a 32-bit state and 16-bit probabilities: section 2 of docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <vector>

namespace dlf {

constexpr uint32_t kProbabilityOne = 1u << 16;
constexpr int32_t kMaxSymbol = 1 << 20; // in size; what a stream can hold

// CDFs in the layout for coding. A CDF of values has the symbols 0..2*bound for -bound..bound, and 2*bound+1 for the escape; one
// of an alphabet has its symbols alone.
class CdfTables {
public:
    // Each adds a CDF; returns false, and adds nothing, unless the frequencies are >= 1 with a sum of 65536.
    bool add_values(const std::vector<uint16_t> &frequencies); // 2*bound+2 of them
    bool add_alphabet(const std::vector<uint16_t> &frequencies);
    size_t size() const { return cdfs_.size(); }

    struct Symbol {
        uint32_t reciprocal; // of the frequency, see divide()
        uint16_t start;      // first slot
        uint16_t frequency;  // slots
    };
    // Consecutive slots, and the symbol of the first: a search starts there.
    struct Bucket {
        uint16_t start, frequency; // of that symbol
        uint32_t symbol;
    };
    struct Cdf {
        int32_t bound;
        uint32_t slot_shift; // slots of a bucket, log2
        uint32_t symbols;    // the first of them
        uint32_t buckets;    // likewise
        Bucket zero;         // the symbol of value 0

        int32_t escape() const { return 2 * bound + 1; }
    };
    const Cdf &operator[](int16_t index) const { return cdfs_[static_cast<size_t>(index)]; }
    const Symbol *symbols(const Cdf &cdf) const { return &symbols_[cdf.symbols]; }
    const Bucket *buckets(const Cdf &cdf) const { return &buckets_[cdf.buckets]; }

private:
    bool add(const std::vector<uint16_t> &frequencies, size_t bound);

    std::vector<Cdf> cdfs_;
    std::vector<Symbol> symbols_;
    std::vector<Bucket> buckets_;
};

// Encodes the symbols whose index is not -1, each with the CDF of its index. Symbols are in -kMaxSymbol..kMaxSymbol.
// Returns the stream's size; the stream is the last bytes of `stream`.
size_t rans_encode(const CdfTables &cdfs, const int32_t *symbols, const int16_t *indexes, size_t count,
                   std::pmr::vector<uint8_t> &stream);

// Encodes symbols of alphabets in front of what a stream holds: each with the next CDF in turn. `stream` receives all of it.
void rans_prepend(const CdfTables &alphabets, const uint16_t *symbols, size_t count, const uint8_t *behind, size_t size,
                  std::pmr::vector<uint8_t> &stream);

// Reads untrusted bytes; throws a Failure for a stream that no encoder writes.
class RansDecoder {
public:
    RansDecoder(const void *data, size_t size);
    void get(const CdfTables &cdfs, const int16_t *indexes, size_t count, int32_t *symbols); // 0 where the index is -1
    void get_letters(const CdfTables &alphabets, size_t count, uint16_t *symbols);           // the inverse of rans_prepend
    void finish() const;                                                                     // checks that the stream ends here

    // What follows, as a stream of its own: its size, and its bytes.
    size_t left() const { return sizeof state_ + static_cast<size_t>(end_ - next_); }
    void copy_left(uint8_t *stream) const;

private:
    uint32_t state_;
    const uint8_t *next_;
    const uint8_t *end_;
};

} // namespace dlf
