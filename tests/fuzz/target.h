// What the fuzz targets share: their entry point's declaration, a check, and inputs taken apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "dlf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Unlike assert, checked in every build.
#define CHECK(condition)                                                                                                         \
    ((condition) ? void() : (std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), std::abort()))

inline std::vector<uint8_t> read_file(const char *path) {
    std::ifstream file(path, std::ios::binary);
    CHECK(file);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline const dlf_entropy *open_model(const char *path) {
    const std::vector<uint8_t> data = read_file(path);
    dlf_entropy *opened = nullptr;
    CHECK(dlf_entropy_open(data.data(), data.size(), &opened) == DLF_OK);
    return opened;
}

// The entropy model of the conformance vectors, and the one that codes tokens.
inline const dlf_entropy *conformance_model() {
    static const dlf_entropy *const model = open_model(CONFORMANCE "/entropy.bin");
    return model;
}

inline const dlf_entropy *coding_model() {
    static const dlf_entropy *const model = open_model(CONFORMANCE "/coded-tokens/entropy.bin");
    return model;
}

inline dlf_entropy_info entropy_info(const dlf_entropy *model) {
    dlf_entropy_info info = {};
    info.struct_size = sizeof info;
    dlf_entropy_get_info(model, &info);
    return info;
}

// Takes values off the front of an input.
struct Input {
    const uint8_t *data;
    size_t size;

    template <class T> bool take(T &value) {
        if (size < sizeof value)
            return false;
        std::memcpy(&value, data, sizeof value);
        data += sizeof value;
        size -= sizeof value;
        return true;
    }
};

// A CDF index of the model, or -1, of any 16 bits; of index + 1, the index.
inline int16_t cdf_index(uint16_t bits, const dlf_entropy_info &model) {
    return static_cast<int16_t>(static_cast<int>(bits % (model.cdfs + 1)) - 1);
}
