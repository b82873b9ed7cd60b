#include <arm_neon.h>

#include "entropy/prior_simd.h"

namespace dlf {
namespace {

struct Neon {
    using Int32 = int32x4_t;
    using Int16 = int16x8_t;
    static constexpr size_t kLanes = 4, kGroup = 1, kTile = 8;
    static constexpr bool kInterleavedBias = false;

    static DLF_INLINE Int32 zero() { return vdupq_n_s32(0); }
    static DLF_INLINE Int32 load32(const int32_t *x) { return vld1q_s32(x); }
    static DLF_INLINE Int16 load16(const int16_t *x) { return vld1q_s16(x); }
    static DLF_INLINE void store16(int16_t *out, Int16 x) { vst1q_s16(out, x); }

    static DLF_INLINE Int16 broadcast(const int16_t *x) { return vld1q_dup_s16(x); }

    struct Weights {
        explicit DLF_INLINE Weights(const int16_t *w) : both(vld1q_s16(w)) {}
        Int16 both; // a panel's two vectors of four
    };
    static DLF_INLINE void dot(Int32 &a, Int32 &b, const Weights &w, Int16 x) {
        a = vmlal_s16(a, vget_low_s16(w.both), vget_low_s16(x));
        b = vmlal_high_s16(b, w.both, x);
    }

    // The upper halves of the 64-bit sums are the results.
    struct Requant {
        DLF_INLINE Requant(const int32_t *m_, const int64_t *b)
            : m(vld1q_s32(m_)), b_low(vld1q_s64(b)), b_high(vld1q_s64(b + kLanes / 2)) {}
        DLF_INLINE Int32 operator()(Int32 acc) const {
            const int32x2_t low = vaddhn_s64(vmull_s32(vget_low_s32(acc), vget_low_s32(m)), b_low);
            return vaddhn_high_s64(low, vmull_high_s32(acc, m), b_high);
        }
        int32x4_t m;
        int64x2_t b_low, b_high;
    };

    static DLF_INLINE Int16 pack(Int32 a, Int32 b) { return vqmovn_high_s32(vqmovn_s32(a), b); }

    static DLF_INLINE Int16 add16(Int32 a, Int32 b, Int16 x) {
        return pack(vqaddq_s32(a, vmovl_s16(vget_low_s16(x))), vqaddq_s32(b, vmovl_high_s16(x)));
    }

    // max(x, (x * k + 2^15) >> 16): the product is the larger one exactly where x is negative.
    static DLF_INLINE Int16 leaky(Int16 x, int32_t k) {
        const int16x4_t slope = vdup_n_s16(static_cast<int16_t>(k));
        const int16x4_t low = vrshrn_n_s32(vmull_s16(vget_low_s16(x), slope), 16);
        return vmaxq_s16(x, vrshrn_high_n_s32(low, vmull_s16(vget_high_s16(x), slope), 16));
    }

    static DLF_INLINE Int16 adds(Int16 x, Int16 y) { return vqaddq_s16(x, y); }

    static DLF_INLINE void taps(const int16_t *w, const int16_t *x, size_t row, size_t stride, Int32 &a, Int32 &b) {
#pragma GCC unroll 9
        for (size_t tap = 0; tap < kTaps; ++tap, w += 2 * kLanes) {
            dot(a, b, Weights(w), load16(tap_at(x, tap, row, stride)));
        }
    }
};

} // namespace

const PriorKernels kNeonKernels = Simd<Neon>::table("neon");

} // namespace dlf
