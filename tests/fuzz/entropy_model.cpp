// An entropy.bin, and what is accepted as one at work: a hostile model must not break the coder either.
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dlf_entropy *model = nullptr;
    if (dlf_entropy_open(data, size, &model) != DLF_OK)
        return 0;
    const dlf_entropy_info info = entropy_info(model);
    constexpr uint32_t side = 8;
    std::vector<float> y(size_t{info.channels} * side * side), y_hat(y.size());
    for (size_t i = 0; i < y.size(); ++i)
        y[i] = static_cast<float>(i % 17) - 8;

    uint8_t *stream = nullptr;
    size_t stream_size = 0;
    CHECK(dlf_detail_encode(model, y.data(), side, side, y_hat.data(), &stream, &stream_size) == DLF_OK);
    std::vector<float> decoded(y.size());
    CHECK(dlf_detail_decode(model, stream, stream_size, side, side, decoded.data()) == DLF_OK);
    CHECK(std::memcmp(decoded.data(), y_hat.data(), y_hat.size() * sizeof(float)) == 0);

    std::vector<float> z(size_t{info.codebook_dim} * 32, 0.5f);
    std::vector<uint16_t> tokens(32);
    CHECK(dlf_vq_lookup(model, z.data(), 1, tokens.data()) == DLF_OK);
    CHECK(dlf_vq_embed(model, tokens.data(), 1, z.data()) == DLF_OK);
    if (info.coded_tokens) {
        uint8_t *joined = nullptr;
        size_t joined_size = 0, detail_size = 0;
        CHECK(dlf_tokens_encode(model, tokens.data(), 1, stream, stream_size, &joined, &joined_size) == DLF_OK);
        std::vector<uint8_t> detail(joined_size);
        std::vector<uint16_t> again(32);
        CHECK(dlf_tokens_decode(model, joined, joined_size, 1, again.data(), detail.data(), &detail_size) == DLF_OK);
        CHECK(again == tokens && detail_size == stream_size && std::memcmp(detail.data(), stream, stream_size) == 0);
        dlf_free(joined);
    }
    dlf_free(stream);
    dlf_entropy_free(model);
    return 0;
}
