// Any bytes as a rANS stream. Input: a u16 count, that many u16 of index + 1, the stream.
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const dlf_entropy *model = conformance_model();
    const dlf_entropy_info info = entropy_info(model);
    Input input{data, size};
    uint16_t count = 0, bits = 0;
    input.take(count);
    std::vector<int16_t> indexes;
    while (indexes.size() < count && input.take(bits))
        indexes.push_back(cdf_index(bits, info));

    std::vector<int32_t> symbols(indexes.size());
    if (dlf_rans_decode(model, input.data, input.size, indexes.data(), indexes.size(), symbols.data()) != DLF_OK)
        return 0;
    // Decoding is one to one: a stream that decodes is the one that encoding gives.
    uint8_t *stream = nullptr;
    size_t stream_size = 0;
    CHECK(dlf_rans_encode(model, symbols.data(), indexes.data(), indexes.size(), &stream, &stream_size) == DLF_OK);
    CHECK(stream_size == input.size && std::memcmp(stream, input.data, stream_size) == 0);
    dlf_free(stream);
    return 0;
}
