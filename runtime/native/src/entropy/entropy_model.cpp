#include "entropy/entropy_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "support/byte_reader.h"
#include "support/formats.h"

namespace dlf {
namespace {

constexpr char kMagic[4] = {'D', 'L', 'F', 'E'};
constexpr uint32_t kVersion = 1, kVersionWithTokens = 2;
constexpr double kUnitTolerance = 1e-3; // of a codebook vector's squared length
constexpr int64_t kMaxBias = int64_t{1} << 62;
constexpr int64_t kMaxWeightSum = 65535; // 32768 * sum|w| < 2^31

void check(bool condition) { require(condition, DLF_ERROR_BUNDLE_BROKEN); }

size_t read_count(ByteReader &reader, uint32_t max) {
    const auto count = reader.value<uint32_t>();
    check(1 <= count && count <= max);
    return count;
}

std::vector<float> read_codebook(ByteReader &reader, size_t size, size_t dim) {
    auto codebook = reader.values<float>(size * dim);
    for (size_t k = 0; k < size; ++k) {
        double square = 0;
        for (size_t i = 0; i < dim; ++i)
            square += double{codebook[k * dim + i]} * codebook[k * dim + i];
        check(std::fabs(square - 1) <= kUnitTolerance); // false for NaN too
    }
    return codebook;
}

CdfTables read_cdfs(ByteReader &reader, size_t count) {
    const auto bounds = reader.values<uint16_t>(count);
    CdfTables cdfs;
    for (const uint16_t bound : bounds)
        check(cdfs.add_values(reader.values<uint16_t>(2 * size_t{bound} + 2)));
    return cdfs;
}

// Returns a CDF for each place of a token in a tile.
CdfTables read_token_cdfs(ByteReader &reader, size_t codebook_size) {
    CdfTables cdfs;
    for (size_t place = 0; place < kTokensPerTile; ++place)
        check(cdfs.add_alphabet(reader.values<uint16_t>(codebook_size)));
    return cdfs;
}

// Returns the CDF index of every scale: the number of thresholds <= it, minus one.
std::vector<int16_t> read_scale_indexes(ByteReader &reader, size_t cdf_count) {
    const auto thresholds = reader.values<int16_t>(cdf_count);
    check(std::is_sorted(thresholds.begin(), thresholds.end()));
    std::vector<int16_t> indexes;
    for (int32_t scale = INT16_MIN, above = 0; scale <= INT16_MAX; ++scale) {
        while (above < int32_t(cdf_count) && thresholds[size_t(above)] <= scale)
            ++above;
        indexes.push_back(static_cast<int16_t>(above - 1));
    }
    return indexes;
}

Layer read_layer(ByteReader &reader, size_t outputs, size_t inputs) {
    Layer layer{outputs, inputs, reader.values<int8_t>(outputs * inputs), reader.values<int32_t>(outputs),
                reader.values<int64_t>(outputs)};
    for (size_t o = 0; o < outputs; ++o) {
        int64_t sum = 0;
        for (size_t i = 0; i < inputs; ++i)
            sum += std::abs(int{layer.w[o * inputs + i]});
        check(sum <= kMaxWeightSum);
        check(layer.m[o] >= 0);
        check(-kMaxBias <= layer.b[o] && layer.b[o] <= kMaxBias);
    }
    return layer;
}

DepthBlock read_block(ByteReader &reader, size_t d) {
    DepthBlock block;
    block.conv1 = read_layer(reader, d, d);
    block.depth_conv = read_layer(reader, d, kTaps);
    block.conv2 = read_layer(reader, d, d);
    block.conv = read_layer(reader, 4 * d, d);
    block.conv_out = read_layer(reader, d, 2 * d);
    return block;
}

uint32_t bits_for(size_t count) {
    uint32_t bits = 1;
    while (size_t{1} << bits < count)
        ++bits;
    return bits;
}

} // namespace

EntropyModel::EntropyModel(const void *data, size_t size, const PriorKernels &kernels) {
    ByteReader reader(data, size, DLF_ERROR_BUNDLE_BROKEN);
    require(std::memcmp(reader.bytes(sizeof kMagic), kMagic, sizeof kMagic) == 0, DLF_ERROR_BUNDLE_FOREIGN);
    const auto version = reader.value<uint32_t>();
    require(version == kVersion || version == kVersionWithTokens, DLF_ERROR_BUNDLE_FOREIGN);
    channels = read_count(reader, 1024);
    check(channels % 4 == 0);
    codebook_size = read_count(reader, 65536);
    token_bits = bits_for(codebook_size);
    codebook_dim = read_count(reader, 1024);
    const size_t cdf_count = read_count(reader, 1024);

    codebook = read_codebook(reader, codebook_size, codebook_dim);
    cdfs = read_cdfs(reader, cdf_count);
    scale_indexes = read_scale_indexes(reader, cdf_count);

    const size_t table_size = channels * kClasses * kClasses;
    q = reader.values<float>(table_size);
    check(std::all_of(q.begin(), q.end(), [](float step) { return std::isfinite(step) && step > 0; }));
    indexes = reader.values<int16_t>(table_size);
    check(std::all_of(indexes.begin(), indexes.end(), [&](int index) { return -1 <= index && index < int(cdf_count); }));
    means = reader.values<int16_t>(table_size);
    common = reader.values<int16_t>(table_size);

    std::array<DepthBlock, kSteps - 1> adaptors;
    for (DepthBlock &block : adaptors)
        block = read_block(reader, 2 * channels);
    std::array<DepthBlock, kSharedBlocks> shared;
    for (DepthBlock &block : shared)
        block = read_block(reader, 2 * channels);
    if (version == kVersionWithTokens)
        token_cdfs = read_token_cdfs(reader, codebook_size);
    check(reader.left() == 0);
    prior = PriorTables(kernels, adaptors, shared, common);
}

} // namespace dlf
