// Which batch the inputs of a stage are. The same rules as `batch_size` of runtime/gpu/plan.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/manifest.h"
#include "dlf.h"

namespace dlf {

// n images of h by w tiles.
struct BatchSize {
    uint64_t n, h, w;
};

// Throws a Failure: BUNDLE_BROKEN where the manifest's shapes do not tell it, BACKEND_FAILED where the inputs do not fit them.
//  ports   the stage's inputs as the manifest has them
BatchSize batch_size(const std::vector<Manifest::Port> &ports, const dlf_tensor *inputs, size_t input_count);

// The input of this name. Throws a Failure, BACKEND_FAILED, where the codec gives none.
const dlf_tensor &input_named(const dlf_tensor *inputs, size_t input_count, const std::string &name);

} // namespace dlf
