// Reads untrusted bytes, and never past their end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "support/failure.h"

namespace dlf {

// Of the 32 bits in WebAssembly, the largest model and image that core.cpp accepts there, 2^26 pixels, take 30.
#if !defined(__wasm32__)
static_assert(sizeof(size_t) >= 8, "sizes of maps and files are computed in size_t, which 64 bits keep from overflowing");
#endif

class ByteReader {
public:
    // Every read past the end fails with `at_end`.
    ByteReader(const void *data, size_t size, dlf_result at_end)
        : next_(static_cast<const uint8_t *>(data)), end_(next_ + size), at_end_(at_end) {}

    size_t left() const { return static_cast<size_t>(end_ - next_); }

    uint8_t byte() {
        require(next_ != end_, at_end_);
        return *next_++;
    }

    // Returns `count` bytes without copying them.
    const uint8_t *bytes(size_t count) {
        require(count <= left(), at_end_);
        const uint8_t *taken = next_;
        next_ += count;
        return taken;
    }

    // A little-endian integer or float.
    template <class T> T value() { return load<T>(bytes(sizeof(T))); }

    // `count` of them. Memory is allocated only after the number of bytes was checked.
    template <class T> std::vector<T> values(size_t count) {
        require(count <= left() / sizeof(T), at_end_);
        const uint8_t *raw = bytes(count * sizeof(T));
        std::vector<T> result(count);
        for (size_t i = 0; i < count; ++i)
            result[i] = load<T>(raw + i * sizeof(T));
        return result;
    }

private:
    template <class T> static T load(const uint8_t *raw) {
        static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8);
        uint64_t bits = 0;
        for (size_t i = 0; i < sizeof(T); ++i)
            bits |= uint64_t{raw[i]} << (8 * i);
        using Bits = std::conditional_t<
            sizeof(T) == 1, uint8_t,
            std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;
        const Bits narrow = static_cast<Bits>(bits);
        T value;
        std::memcpy(&value, &narrow, sizeof(T));
        return value;
    }

    const uint8_t *next_;
    const uint8_t *end_;
    dlf_result at_end_;
};

} // namespace dlf
