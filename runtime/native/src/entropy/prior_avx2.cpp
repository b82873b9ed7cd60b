#include <immintrin.h>

#include "entropy/prior_simd.h"

namespace dlf {
namespace {

struct Avx2 {
    using Int32 = __m256i;
    using Int16 = __m256i;
    static constexpr size_t kLanes = 8, kGroup = 2, kTile = 4;
    static constexpr bool kInterleavedBias = true;

    static DLF_INLINE __m256i load(const void *x) { return _mm256_loadu_si256(static_cast<const __m256i *>(x)); }
    static DLF_INLINE Int32 zero() { return _mm256_setzero_si256(); }
    static DLF_INLINE Int32 load32(const int32_t *x) { return load(x); }
    static DLF_INLINE Int16 load16(const int16_t *x) { return load(x); }
    static DLF_INLINE void store16(int16_t *out, Int16 x) {
        void *bytes = out;
        _mm256_storeu_si256(static_cast<__m256i *>(bytes), x);
    }

    static DLF_INLINE Int16 broadcast(const int16_t *pair) {
        int32_t bits;
        __builtin_memcpy(&bits, pair, sizeof bits);
        return _mm256_set1_epi32(bits);
    }

    // Two products of an int8 and an int16 do not overflow.
    static DLF_INLINE Int32 dot(Int32 acc, Int16 w, Int16 x) { return _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)); }
    struct Weights {
        explicit DLF_INLINE Weights(const int16_t *w) : a(load16(w)), b(load16(w + 2 * kLanes)) {}
        Int16 a, b;
    };
    static DLF_INLINE void dot(Int32 &a, Int32 &b, const Weights &w, Int16 x) {
        a = dot(a, w.a, x);
        b = dot(b, w.b, x);
        __asm__ volatile("" : "+x"(a), "+x"(b)); // computes positions one after another: GCC 12 would run out of registers
    }

    // 64-bit products of the even and of the odd lanes; the upper halves of the sums are the results.
    struct Requant {
        DLF_INLINE Requant(const int32_t *m, const int64_t *b)
            : m_even(load(m)), m_odd(_mm256_srli_epi64(m_even, 32)), b_even(load(b)), b_odd(load(b + kLanes / 2)) {}
        DLF_INLINE Int32 operator()(Int32 acc) const {
            const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(acc, m_even), b_even);
            const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), m_odd), b_odd);
            return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
        }
        __m256i m_even, m_odd, b_even, b_odd;
    };

    static DLF_INLINE Int16 pack(Int32 a, Int32 b) { return _mm256_packs_epi32(a, b); }

    // Clamped outside the range of int16, so that the sum with an int16 fits int32.
    static DLF_INLINE Int32 clamp(Int32 value) {
        const Int32 limit = _mm256_set1_epi32(1 << 24);
        return _mm256_max_epi32(_mm256_min_epi32(value, limit), _mm256_sub_epi32(zero(), limit));
    }
    static DLF_INLINE Int16 add16(Int32 a, Int32 b, Int16 x) {
        const Int32 xa = _mm256_srai_epi32(_mm256_unpacklo_epi16(x, x), 16);
        const Int32 xb = _mm256_srai_epi32(_mm256_unpackhi_epi16(x, x), 16);
        return pack(_mm256_add_epi32(clamp(a), xa), _mm256_add_epi32(clamp(b), xb));
    }

    // max(x, (x * k + 2^15) >> 16): the product is the larger one exactly where x is negative.
    static DLF_INLINE Int16 leaky(Int16 x, int32_t k) {
        const Int16 slope = _mm256_set1_epi16(static_cast<int16_t>(k));
        const Int16 rounding = _mm256_srli_epi16(_mm256_mullo_epi16(x, slope), 15);
        return _mm256_max_epi16(x, _mm256_add_epi16(_mm256_mulhi_epi16(x, slope), rounding));
    }

    static DLF_INLINE Int16 adds(Int16 x, Int16 y) { return _mm256_adds_epi16(x, y); }

    static DLF_INLINE void taps(const int16_t *w, const int16_t *x, size_t row, size_t stride, Int32 &a, Int32 &b) {
#pragma GCC unroll 5
        for (size_t tap = 0; tap < kTaps; tap += 2, w += 4 * kLanes) {
            const Int16 x0 = load16(tap_at(x, tap, row, stride));
            const Int16 x1 = tap + 1 < kTaps ? load16(tap_at(x, tap + 1, row, stride)) : zero();
            const Weights weights(w);
            a = dot(a, weights.a, _mm256_unpacklo_epi16(x0, x1));
            b = dot(b, weights.b, _mm256_unpackhi_epi16(x0, x1));
        }
    }
};

} // namespace

const PriorKernels kAvx2Kernels = Simd<Avx2>::table("avx2");

} // namespace dlf
