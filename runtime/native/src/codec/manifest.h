// The content of a manifest.json: section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/level_list.h"
#include "codec/memory_needs.h"

namespace dlf {

struct Manifest {
    struct File {
        uint64_t bytes;
        std::string sha256; // hexadecimal
    };
    struct Port {
        std::string name;
        std::vector<std::string> shape; // of sides such as "3", "n" and "256*h"
    };
    struct Stage {
        std::string file;
        std::string precision; // "tf32" where that is allowed; only engines depend on it
        std::vector<Port> inputs;
    };

    std::string name;                     // of the model
    std::string license;                  // of the model, in words; "" where it is not told
    std::string fingerprint;              // four hexadecimal digits
    std::string precision;                // what the stages compute in, such as "fp32"
    std::optional<double> bits_per_pixel; // the model's rate; none where it was not measured
    std::map<std::string, File> files;
    std::map<std::string, Stage> stages;
    std::optional<LevelList> levels; // of the generator; none in bundles that do not list them
    MemoryNeeds memory;              // of none where it was not measured
};

constexpr size_t kMaxManifestBytes = 1 << 20;

// Reads untrusted text. Throws a Failure, whose message says what is wrong with the manifest without naming it.
Manifest parse_manifest(std::string_view text);

} // namespace dlf
