// The content of an entropy.bin (section 4 of docs/format.md), checked and laid out for use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "entropy/prior_tables.h"
#include "entropy/rans.h"

namespace dlf {

struct EntropyModel {
    // Throws a Failure if the data are not an entropy model.
    EntropyModel(const void *data, size_t size, const PriorKernels &kernels);

    // Returns an index into a [C][5][5] table.
    size_t table_index(size_t channel, size_t row, size_t col, size_t height, size_t width) const {
        return (channel * kClasses + position_class(row, height)) * kClasses + position_class(col, width);
    }

    // Returns the CDF index of a scale, -1 if it is below the first threshold.
    int16_t index_of_scale(int16_t scale) const { return scale_indexes[static_cast<size_t>(scale - INT16_MIN)]; }

    // Whether the files of this model code their tokens.
    bool coded_tokens() const { return token_cdfs.size() != 0; }

    size_t channels;
    size_t codebook_size, codebook_dim;
    uint32_t token_bits;
    std::vector<float> codebook; // [codebook_size][codebook_dim], unit vectors
    CdfTables cdfs;
    CdfTables token_cdfs;               // of each place in a tile; none where tokens are packed
    std::vector<int16_t> scale_indexes; // of every int16
    std::vector<float> q;               // [C][5][5]
    std::vector<int16_t> indexes;       // [C][5][5]
    std::vector<int16_t> means;         // [C][5][5]
    std::vector<int16_t> common;        // [C][5][5]
    PriorTables prior;
};

} // namespace dlf
