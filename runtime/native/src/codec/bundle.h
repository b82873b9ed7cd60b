// The bundle: one folder that holds one model. Every file is checked before it is used; see section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "codec/manifest.h"
#include "entropy/entropy.h"
#include "support/temporary_folder.h"

namespace dlf {

constexpr const char *kManifestName = "manifest.json";

// Reads and checks a bundle's manifest; `text` receives it. Throws a Failure.
Manifest read_manifest(const std::filesystem::path &folder, std::string &text);

class Bundle {
public:
    // Reads and checks the manifest and the entropy model. Throws a Failure.
    explicit Bundle(std::filesystem::path folder);

    // The next three are for one thread at a time. They check a file when it is first asked for.

    // A stage's ONNX file, after checking it and the external data files that it refers to. These lie beside it under their own
    // names, and neither is a link: where the bundle's are, the files are linked or copied into a folder that goes with
    // this object.
    std::filesystem::path stage(const std::string &name);

    // Any file that the manifest lists.
    std::filesystem::path file(const std::string &name);

    // SHA-256, in hexadecimal, of a stage's graph and weights; the weights count as the manifest has them, unread.
    std::string stage_digest(const std::string &name);

    const std::optional<LevelList> &levels() const { return manifest_.levels; }
    const MemoryNeeds &memory() const { return manifest_.memory; }
    const std::string &manifest_text() const { return text_; }
    const Manifest::Stage &manifest_of(const std::string &stage) const { return manifest_.stages.at(stage); }
    const std::filesystem::path &folder() const { return folder_; }
    const std::string &name() const { return manifest_.name; }
    const std::string &license() const { return manifest_.license; }
    const std::string &precision() const { return manifest_.precision; }
    const dlf_entropy &entropy() const { return *entropy_; }
    uint32_t fingerprint() const { return fingerprint_; }                         // as .dlf files carry it
    const std::string &fingerprint_text() const { return manifest_.fingerprint; } // the same, four hexadecimal digits

private:
    std::set<std::string> stage_files(const std::string &name); // the graph, which is checked, and its external data
    void read_entropy();
    [[noreturn]] void broken(const std::string &name, const std::string &fact) const;

    std::filesystem::path beside_each_other(const std::set<std::string> &names); // the folder in which these files are no links

    std::filesystem::path folder_;
    std::unique_ptr<TemporaryFolder> links_replaced_;
    std::string text_;
    Manifest manifest_;
    std::set<std::string> checked_;
    std::unique_ptr<const dlf_entropy> entropy_;
    uint32_t fingerprint_ = 0;
};

} // namespace dlf

// The dlf_bundle of dlf.h.
struct dlf_bundle {
    std::unique_ptr<dlf::Bundle> bundle{}; // NULL where it did not open
    std::string text{};                    // what the last call handed over
    std::string message{};
};
