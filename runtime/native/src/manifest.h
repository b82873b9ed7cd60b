// The content of a manifest.json: section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace dlf {

struct Manifest {
    struct File {
        uint64_t bytes;
        std::string sha256; // hexadecimal
    };

    std::string name;        // of the model
    std::string fingerprint; // four hexadecimal digits
    std::string precision;   // what the stages compute in, such as "fp32"
    std::map<std::string, File> files;
    std::map<std::string, std::string> stages; // stage -> file
};

constexpr size_t kMaxManifestBytes = 1 << 20;

// Reads untrusted text. Throws a Failure, whose message says what is wrong with the manifest without naming it.
Manifest parse_manifest(std::string_view text);

} // namespace dlf
