// SHA-256 by x86's SHA instructions, which are several times as fast. Only this file is compiled for them.
#include "support/sha256.h"

#include <cpuid.h>
#include <immintrin.h>

namespace dlf {
namespace {

__m128i load(const void *from) { return _mm_loadu_si128(static_cast<const __m128i *>(from)); }

void store(uint32_t *to, __m128i value) { _mm_storeu_si128(reinterpret_cast<__m128i *>(to), value); }

} // namespace

bool has_sha256_instructions() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & bit_SHA) != 0 && __builtin_cpu_supports("sse4.1");
}

// Lanes are named from the highest down: the instructions need the state as ABEF and CDGH; in memory it is DCBA and HGFE.
void sha256_blocks_x86(uint32_t *state, const uint8_t *data, size_t count) {
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    const __m128i cdab = _mm_shuffle_epi32(load(state), 0xB1), efgh = _mm_shuffle_epi32(load(state + 4), 0x1B);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
    for (; count > 0; --count, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; // the last 16 words of the schedule; group i of 4 lies in w[i % 4]
        for (size_t i = 0; i < 16; ++i) {
            __m128i &group = w[i % 4];
            const __m128i &last = w[(i + 3) % 4];
            if (i < 4) {
                group = _mm_shuffle_epi8(load(data + 16 * i), big_endian);
            } else {
                const __m128i seven_before = _mm_alignr_epi8(last, w[(i + 2) % 4], 4);
                group = _mm_add_epi32(_mm_sha256msg1_epu32(group, w[(i + 1) % 4]), seven_before);
                group = _mm_sha256msg2_epu32(group, last);
            }
            const __m128i words = _mm_add_epi32(group, load(kSha256Round + 4 * i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    store(state, _mm_blend_epi16(feba, dchg, 0xF0));
    store(state + 4, _mm_alignr_epi8(dchg, feba, 8));
}

} // namespace dlf
