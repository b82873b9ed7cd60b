#include <wasm_simd128.h>

#include "entropy/prior_simd.h"

namespace dlf {
namespace {

struct Simd128 {
    using Int32 = v128_t;
    using Int16 = v128_t;
    static constexpr size_t kLanes = 4, kGroup = 2, kTile = 4;
    static constexpr bool kInterleavedBias = false;

    static DLF_INLINE Int32 zero() { return wasm_i32x4_const_splat(0); }
    static DLF_INLINE Int32 load32(const int32_t *x) { return wasm_v128_load(x); }
    static DLF_INLINE Int16 load16(const int16_t *x) { return wasm_v128_load(x); }
    static DLF_INLINE void store16(int16_t *out, Int16 x) { wasm_v128_store(out, x); }

    static DLF_INLINE Int16 broadcast(const int16_t *pair) { return wasm_v128_load32_splat(pair); }

    // Two products of an int8 and an int16 do not overflow.
    static DLF_INLINE Int32 dot(Int32 acc, Int16 w, Int16 x) { return wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(w, x)); }
    struct Weights {
        explicit DLF_INLINE Weights(const int16_t *w) : a(load16(w)), b(load16(w + 2 * kLanes)) {}
        Int16 a, b;
    };
    static DLF_INLINE void dot(Int32 &a, Int32 &b, const Weights &w, Int16 x) {
        a = dot(a, w.a, x);
        b = dot(b, w.b, x);
    }

    // The upper halves of the 64-bit sums are the results.
    struct Requant {
        DLF_INLINE Requant(const int32_t *m_, const int64_t *b)
            : m(wasm_v128_load(m_)), b_low(wasm_v128_load(b)), b_high(wasm_v128_load(b + kLanes / 2)) {}
        DLF_INLINE Int32 operator()(Int32 acc) const {
            const v128_t low = wasm_i64x2_add(wasm_i64x2_extmul_low_i32x4(acc, m), b_low);
            const v128_t high = wasm_i64x2_add(wasm_i64x2_extmul_high_i32x4(acc, m), b_high);
            return wasm_i32x4_shuffle(low, high, 1, 3, 5, 7);
        }
        v128_t m, b_low, b_high;
    };

    static DLF_INLINE Int16 pack(Int32 a, Int32 b) { return wasm_i16x8_narrow_i32x4(a, b); }

    // Clamped outside the range of int16, so that the sum with an int16 fits int32.
    static DLF_INLINE Int32 clamp(Int32 value) {
        return wasm_i32x4_max(wasm_i32x4_min(value, wasm_i32x4_const_splat(1 << 24)), wasm_i32x4_const_splat(-(1 << 24)));
    }
    static DLF_INLINE Int16 add16(Int32 a, Int32 b, Int16 x) {
        return pack(wasm_i32x4_add(clamp(a), wasm_i32x4_extend_low_i16x8(x)),
                    wasm_i32x4_add(clamp(b), wasm_i32x4_extend_high_i16x8(x)));
    }

    // max(x, (x * k + 2^15) >> 16): the product is the larger one exactly where x is negative.
    static DLF_INLINE Int16 leaky(Int16 x, int32_t k) {
        const v128_t slope = wasm_i16x8_splat(static_cast<int16_t>(k)), half = wasm_i32x4_const_splat(1 << 15);
        const v128_t low = wasm_i32x4_add(wasm_i32x4_extmul_low_i16x8(x, slope), half);
        const v128_t high = wasm_i32x4_add(wasm_i32x4_extmul_high_i16x8(x, slope), half);
        return wasm_i16x8_max(x, wasm_i16x8_shuffle(low, high, 1, 3, 5, 7, 9, 11, 13, 15));
    }

    static DLF_INLINE Int16 adds(Int16 x, Int16 y) { return wasm_i16x8_add_sat(x, y); }

    static DLF_INLINE void taps(const int16_t *w, const int16_t *x, size_t row, size_t stride, Int32 &a, Int32 &b) {
#pragma GCC unroll 5
        for (size_t tap = 0; tap < kTaps; tap += 2, w += 4 * kLanes) {
            const Int16 x0 = load16(tap_at(x, tap, row, stride));
            const Int16 x1 = tap + 1 < kTaps ? load16(tap_at(x, tap + 1, row, stride)) : zero();
            const Weights weights(w);
            a = dot(a, weights.a, wasm_i16x8_shuffle(x0, x1, 0, 8, 1, 9, 2, 10, 3, 11));
            b = dot(b, weights.b, wasm_i16x8_shuffle(x0, x1, 4, 12, 5, 13, 6, 14, 7, 15));
        }
    }
};

} // namespace

const PriorKernels kSimd128Kernels = Simd<Simd128>::table("simd128");

} // namespace dlf
