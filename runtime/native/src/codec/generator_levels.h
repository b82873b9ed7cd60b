// The upper levels of a bundle's pixel generator, with their weights: what goes on where the stage of the generator's base ends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "codec/bundle.h"
#include "winograd/levels.h"

namespace dlf {

class GeneratorLevels {
public:
    // NULL where the bundle lists no levels, or none that can be computed here: then the generator's whole graph is run. Throws
    // a Failure.
    //  threads   at most so many work on an image; 0: one for each processor that may be used
    static std::unique_ptr<const GeneratorLevels> open(Bundle &bundle, uint32_t threads);

    const std::string &stage() const { return stage_; }       // that computes the base
    size_t channels() const { return steps_.front().inputs; } // of the base

    // base (channels, height, width), sides that 4 divides, to image (3, 16 height, 16 width). Throws std::bad_alloc.
    void run(const float *base, size_t height, size_t width, float *image) const;

private:
    GeneratorLevels(Bundle &bundle, const LevelList &list, uint32_t threads);

    std::string stage_;
    std::vector<LevelStep> steps_;
    uint32_t threads_;
};

} // namespace dlf
