#include "entropy/rans.h"

#include <algorithm>
#include <cstring>

#include "support/failure.h"

namespace dlf {
namespace {

// The state is in [kLow, kHigh) between symbols.
constexpr uint32_t kLow = 1u << 23;
constexpr uint32_t kHigh = kLow << 8;
constexpr uint32_t kSlotMask = kProbabilityOne - 1;
constexpr uint32_t kMore = 3;       // in the count of an escaped value's groups: 3, and more follows
constexpr uint32_t kMaxGroups = 11; // of 2 bits: raw < 2^21 for values up to kMaxSymbol in size

// Bytes that a symbol can take, and a value: each of its groups renormalises by one byte at most.
constexpr size_t kMaxSymbolBytes = 2;
constexpr size_t kMaxBytes = kMaxSymbolBytes + kMaxGroups + kMaxGroups / kMore + 1;

// The fewest buckets of a CDF for each of its symbols: few searches leave the bucket's first symbol, and the tables of the CDFs
// that an image uses stay in the caches.
constexpr size_t kBucketsPerSymbol = 2;

uint32_t bit_width(uint32_t x) {
    uint32_t bits = 0;
    for (; x != 0; x >>= 1)
        ++bits;
    return bits;
}

// With s = ceil(log2 f) and R = ceil(2^(31+s) / f), floor(x / f) = x R >> (31+s) for x < 2^31: R f = 2^(31+s) + e with
// 0 <= e < f <= 2^s, so that x R / 2^(31+s) = x / f + d / f where d = x e / 2^(31+s) < 1, too little to reach the next whole
// number. R < 2^32, since 2^(s-1) < f. (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994.)
uint32_t reciprocal(uint32_t frequency) {
    const uint32_t shift = 31 + bit_width(frequency - 1);
    return static_cast<uint32_t>(((uint64_t{1} << shift) + frequency - 1) / frequency);
}

uint32_t divide(uint32_t x, const CdfTables::Symbol &symbol) {
    // bit_width(2f - 1) = 1 + bit_width(f - 1), and is not asked of 0.
    const auto shift = static_cast<uint32_t>(62 - __builtin_clz(2u * symbol.frequency - 1));
    return static_cast<uint32_t>(uint64_t{x} * symbol.reciprocal >> shift);
}

// Encodes values last to first, because the decoder reads first what is written last. Copied by value, so that a loop that
// encodes many symbols keeps it in registers.
struct Encoder {
    uint32_t state;
    uint8_t *next; // one past the byte that is written next

    void put(const CdfTables &cdfs, const CdfTables::Cdf &cdf, int32_t value) {
        const int32_t symbol = value + cdf.bound;
        if (0 <= symbol && symbol < cdf.escape())
            put_symbol(cdfs.symbols(cdf)[symbol]);
        else
            put_escaped(cdf, symbol, cdfs.symbols(cdf)[cdf.escape()]);
    }

    void put_symbol(const CdfTables::Symbol &symbol) {
        const uint32_t limit = symbol.frequency * (kHigh / kProbabilityOne);
        while (state >= limit)
            emit();
        state += divide(state, symbol) * (kProbabilityOne - symbol.frequency) + symbol.start;
    }

    void put_group(uint32_t group) {
        if (state >= kHigh >> 2)
            emit();
        state = (state << 2) | group;
    }

    void put_escaped(const CdfTables::Cdf &cdf, int32_t symbol, const CdfTables::Symbol &escape) {
        const auto raw = static_cast<uint32_t>(symbol < 0 ? -2 * symbol - 1 : 2 * (symbol - cdf.escape()));
        const uint32_t groups = (bit_width(raw) + 1) / 2;
        for (uint32_t i = groups; i-- > 0;)
            put_group((raw >> (2 * i)) & 3);
        put_group(groups % kMore);
        for (uint32_t i = groups / kMore; i-- > 0;)
            put_group(kMore);
        put_symbol(escape);
    }

    void emit() {
        *--next = static_cast<uint8_t>(state);
        state >>= 8;
    }

    void finish() { // the state, its lowest byte first
        for (uint32_t shift = 32; shift > 0; shift -= 8)
            *--next = static_cast<uint8_t>(state >> (shift - 8));
    }
};

// Returns a stream's first state.
uint32_t read_state(const uint8_t *stream, size_t size) {
    uint32_t state = 0;
    require(size >= sizeof state, DLF_ERROR_TRUNCATED);
    for (uint32_t shift = 0; shift < 32; shift += 8)
        state |= uint32_t{*stream++} << shift;
    require(kLow <= state && state < kHigh, DLF_ERROR_STREAM_CORRUPT);
    return state;
}

// Makes room before `next`, which points into `memory`; returns its new position.
uint8_t *grow(std::pmr::vector<uint8_t> &memory, const uint8_t *next) {
    const auto left = static_cast<size_t>(next - memory.data());
    const size_t added = memory.size();
    memory.insert(memory.begin(), added, 0);
    return memory.data() + left + added;
}

// A decoder's state, in registers while it decodes many symbols.
struct Position {
    uint32_t state;
    const uint8_t *next;
    const uint8_t *end;

    void read_byte() {
        require(next != end, DLF_ERROR_TRUNCATED);
        state = (state << 8) | *next++;
    }

    int32_t symbol(const CdfTables &cdfs, const CdfTables::Cdf &cdf) {
        const uint32_t slot = state & kSlotMask;
        // Most values are 0, and the processor predicts this branch: it need not wait for the table look-up.
        CdfTables::Bucket found = cdf.zero;
        if (slot - found.start >= found.frequency) {
            found = cdfs.buckets(cdf)[slot >> cdf.slot_shift];
            while (slot - found.start >= found.frequency) {
                const CdfTables::Symbol &next_symbol = cdfs.symbols(cdf)[++found.symbol];
                found.start = next_symbol.start;
                found.frequency = next_symbol.frequency;
            }
        }
        state = found.frequency * (state >> 16) + slot - found.start;
        while (state < kLow)
            read_byte();
        return static_cast<int32_t>(found.symbol);
    }

    uint32_t group() {
        const uint32_t value = state & 3;
        state >>= 2;
        if (state < kLow)
            read_byte();
        return value;
    }

    int32_t escaped(const CdfTables::Cdf &cdf) {
        uint32_t groups = 0;
        for (uint32_t part = kMore; part == kMore;) {
            part = group();
            groups += part;
            require(groups <= kMaxGroups, DLF_ERROR_STREAM_CORRUPT);
        }
        uint32_t raw = 0;
        for (uint32_t i = 0; i < groups; ++i)
            raw |= group() << (2 * i);
        // A zero group at the end would be a second code of the same value.
        require(groups == 0 || raw >> (2 * (groups - 1)) != 0, DLF_ERROR_STREAM_CORRUPT);
        const int64_t half = raw >> 1;
        const int64_t value = (raw & 1 ? -half - 1 : half + cdf.escape()) - cdf.bound;
        require(-kMaxSymbol <= value && value <= kMaxSymbol, DLF_ERROR_STREAM_CORRUPT);
        return static_cast<int32_t>(value);
    }
};

} // namespace

bool CdfTables::add_values(const std::vector<uint16_t> &frequencies) { return add(frequencies, frequencies.size() / 2 - 1); }

bool CdfTables::add_alphabet(const std::vector<uint16_t> &frequencies) { return add(frequencies, 0); }

bool CdfTables::add(const std::vector<uint16_t> &frequencies, size_t bound) {
    uint64_t sum = 0;
    for (const uint16_t frequency : frequencies) {
        if (frequency == 0)
            return false;
        sum += frequency;
    }
    if (sum != kProbabilityOne)
        return false;

    Cdf cdf{static_cast<int32_t>(bound), 16, static_cast<uint32_t>(symbols_.size()), static_cast<uint32_t>(buckets_.size()), {}};
    while (cdf.slot_shift > 0 && kProbabilityOne >> cdf.slot_shift < kBucketsPerSymbol * frequencies.size())
        --cdf.slot_shift;
    uint32_t start = 0, bucket = 0;
    for (size_t s = 0; s < frequencies.size(); ++s) {
        const uint16_t frequency = frequencies[s];
        symbols_.push_back({reciprocal(frequency), static_cast<uint16_t>(start), frequency});
        start += frequency;
        for (; bucket << cdf.slot_shift < start; ++bucket)
            buckets_.push_back({symbols_.back().start, frequency, static_cast<uint32_t>(s)});
        if (s == bound)
            cdf.zero = {symbols_.back().start, frequency, static_cast<uint32_t>(s)};
    }
    cdfs_.push_back(cdf);
    return true;
}

size_t rans_encode(const CdfTables &cdfs, const int32_t *symbols, const int16_t *indexes, size_t count,
                   std::pmr::vector<uint8_t> &stream) {
    if (stream.size() < kMaxBytes)
        stream.resize(4096);
    Encoder encoder{kLow, stream.data() + stream.size()};
    const uint8_t *enough = stream.data() + kMaxBytes;
    const auto make_room = [&] {
        encoder.next = grow(stream, encoder.next);
        enough = stream.data() + kMaxBytes;
    };
    for (size_t i = count; i-- > 0;) {
        if (indexes[i] < 0)
            continue;
        if (encoder.next < enough)
            make_room();
        encoder.put(cdfs, cdfs[indexes[i]], symbols[i]);
    }
    if (encoder.next < enough)
        make_room();
    encoder.finish();
    return static_cast<size_t>(stream.data() + stream.size() - encoder.next);
}

void rans_prepend(const CdfTables &alphabets, const uint16_t *symbols, size_t count, const uint8_t *behind, size_t size,
                  std::pmr::vector<uint8_t> &stream) {
    const uint32_t state = read_state(behind, size);
    stream.resize(kMaxSymbolBytes * count + size);
    std::copy(behind + sizeof state, behind + size, stream.end() - static_cast<ptrdiff_t>(size - sizeof state));
    Encoder encoder{state, stream.data() + stream.size() - (size - sizeof state)};
    for (size_t i = count; i-- > 0;) {
        const CdfTables::Cdf &cdf = alphabets[static_cast<int16_t>(i % alphabets.size())];
        encoder.put_symbol(alphabets.symbols(cdf)[symbols[i]]);
    }
    encoder.finish();
    stream.erase(stream.begin(), stream.begin() + (encoder.next - stream.data()));
}

RansDecoder::RansDecoder(const void *data, size_t size)
    : state_(read_state(static_cast<const uint8_t *>(data), size)), next_(static_cast<const uint8_t *>(data) + sizeof state_),
      end_(static_cast<const uint8_t *>(data) + size) {}

void RansDecoder::get(const CdfTables &cdfs, const int16_t *indexes, size_t count, int32_t *symbols) {
    Position position{state_, next_, end_};
    for (size_t i = 0; i < count; ++i) {
        if (indexes[i] < 0) {
            symbols[i] = 0;
            continue;
        }
        const CdfTables::Cdf &cdf = cdfs[indexes[i]];
        const int32_t symbol = position.symbol(cdfs, cdf);
        symbols[i] = symbol == cdf.escape() ? position.escaped(cdf) : symbol - cdf.bound;
    }
    state_ = position.state;
    next_ = position.next;
}

void RansDecoder::get_letters(const CdfTables &alphabets, size_t count, uint16_t *symbols) {
    Position position{state_, next_, end_};
    for (size_t i = 0; i < count; ++i)
        symbols[i] = static_cast<uint16_t>(position.symbol(alphabets, alphabets[static_cast<int16_t>(i % alphabets.size())]));
    state_ = position.state;
    next_ = position.next;
}

void RansDecoder::copy_left(uint8_t *stream) const {
    std::copy(next_, end_, stream + sizeof state_);
    for (uint32_t shift = 0; shift < 32; shift += 8)
        *stream++ = static_cast<uint8_t>(state_ >> shift);
}

void RansDecoder::finish() const {
    require(next_ == end_, DLF_ERROR_TRAILING_BYTES);
    require(state_ == kLow, DLF_ERROR_STREAM_CORRUPT);
}

} // namespace dlf
