// The bundle: one folder that holds one model. Every file is checked before it is used; see section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "entropy/entropy.h"
#include "codec/manifest.h"

namespace dlf {

class Bundle {
public:
    // Reads and checks the manifest and the entropy model. Throws a Failure.
    explicit Bundle(std::filesystem::path folder);

    // A stage's ONNX file, after checking it and the external data files that it refers to. For one thread at a time.
    std::filesystem::path stage(const std::string &name);

    // SHA-256, in hexadecimal, of a stage's graph and weights; the weights count as the manifest has them, unread.
    std::string stage_digest(const std::string &name);

    const Manifest::Stage &manifest_of(const std::string &stage) const { return manifest_.stages.at(stage); }
    const std::filesystem::path &folder() const { return folder_; }
    const std::string &name() const { return manifest_.name; }
    const std::string &license() const { return manifest_.license; }
    const std::string &precision() const { return manifest_.precision; }
    const dlf_entropy &entropy() const { return *entropy_; }
    uint32_t fingerprint() const { return fingerprint_; } // as .dlf files carry it

private:
    std::filesystem::path check(const std::string &name); // a file's path, after checking its name, place, size and hash (once)
    std::set<std::string> stage_files(const std::string &name);    // the graph, which is checked, and its external data
    void read_entropy();
    [[noreturn]] void broken(const std::string &name, const std::string &fact) const;

    std::filesystem::path folder_;
    Manifest manifest_;
    std::set<std::string> checked_;
    std::unique_ptr<const dlf_entropy> entropy_;
    uint32_t fingerprint_ = 0;
};

} // namespace dlf
