// Any symbols through the coder and back. Input: for each symbol a u16 of index + 1 and an i32, clamped to what can be coded.
#include "target.h"

#include <algorithm>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    constexpr int32_t kMaxSymbol = 1 << 20;
    const dlf_entropy *model = conformance_model();
    const dlf_entropy_info info = entropy_info(model);
    Input input{data, size};
    std::vector<int16_t> indexes;
    std::vector<int32_t> symbols, decoded;
    uint16_t bits = 0;
    int32_t symbol = 0;
    while (input.take(bits) && input.take(symbol)) {
        indexes.push_back(cdf_index(bits, info));
        symbols.push_back(std::clamp(symbol, -kMaxSymbol, kMaxSymbol));
    }

    uint8_t *stream = nullptr;
    size_t stream_size = 0;
    CHECK(dlf_rans_encode(model, symbols.data(), indexes.data(), symbols.size(), &stream, &stream_size) == DLF_OK);
    decoded.resize(symbols.size());
    CHECK(dlf_rans_decode(model, stream, stream_size, indexes.data(), indexes.size(), decoded.data()) == DLF_OK);
    for (size_t i = 0; i < symbols.size(); ++i)
        CHECK(decoded[i] == (indexes[i] < 0 ? 0 : symbols[i]));
    dlf_free(stream);
    return 0;
}
