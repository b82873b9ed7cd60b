#include "codec/bundle.h"

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "support/failure.h"
#include "support/files.h"
#include "support/sha256.h"

namespace dlf {
namespace {

constexpr const char *kEntropy = "entropy.bin";
constexpr const char *kRemedy = "; export or download the bundle again.";
constexpr size_t kPiece = size_t{1} << 20; // files are read in pieces, since a stage's weights may be larger than memory

std::string sha256_of(File &file) {
    Sha256 sha256;
    for (std::string piece; file.append_to(piece, kPiece); piece.clear())
        sha256.update(piece.data(), piece.size());
    const Sha256::Digest digest = sha256.finish();
    return hexadecimal(digest.data(), digest.size());
}

// The names of the files that an ONNX file keeps its weights in.
std::set<std::string> external_data(File &onnx) {
    // TensorProto.external_data in protobuf: an entry of key "location", then its value, a file name, behind one byte of length.
    // (Backends parse it in full, and they too refuse what leaves the folder; this is to have every file's hash checked.)
    static constexpr std::string_view kLocation = "\n\x08location\x12";
    constexpr size_t kLongest = 1 + 255; // the length and the name
    std::set<std::string> names;
    std::string window;
    for (bool more = true; more;) {
        more = onnx.append_to(window, kPiece);
        size_t done = 0;
        for (;;) {
            const size_t found = window.find(kLocation, done);
            if (found == std::string::npos) {
                done = std::max(done, window.size() - std::min(window.size(), kLocation.size() - 1));
                break;
            }
            const size_t length = found + kLocation.size();
            if (length == window.size() || (more && window.size() < length + kLongest)) { // the rest is not there yet, or never
                done = found;
                break;
            }
            names.insert(window.substr(length + 1, static_cast<uint8_t>(window[length])));
            done = length + 1;
        }
        window.erase(0, done);
    }
    return names;
}

void read_text(const std::filesystem::path &folder, std::string &text) {
    try {
        File file(folder / kManifestName);
        while (text.size() <= kMaxManifestBytes && file.append_to(text, kPiece))
            ;
    } catch (const std::system_error &error) {
        if (error.code().value() == ENOENT || error.code().value() == ENOTDIR)
            fail(DLF_ERROR_BUNDLE_FOREIGN,
                 folder.string() + " is not a bundle: it has no manifest.json; make one with dlf-export.");
        fail(DLF_ERROR_BUNDLE_BROKEN,
             "Bundle " + folder.string() + ": manifest.json cannot be read (" + error.code().message() + ")" + kRemedy);
    }
}

} // namespace

Manifest read_manifest(const std::filesystem::path &folder, std::string &text) {
    read_text(folder, text);
    try {
        return parse_manifest(text);
    } catch (const Failure &failure) {
        fail(failure.result, "Bundle " + folder.string() + ": manifest.json " + failure.message +
                                 (failure.result == DLF_ERROR_BUNDLE_BROKEN ? kRemedy : "."));
    }
}

Bundle::Bundle(std::filesystem::path folder) : folder_(std::move(folder)), manifest_(read_manifest(folder_, text_)) {
    read_entropy();
}

void Bundle::read_entropy() {
    const std::filesystem::path path = file(kEntropy);
    std::string content;
    try {
        File found(path);
        while (found.append_to(content, kPiece))
            ;
    } catch (const std::system_error &error) {
        broken(kEntropy, "cannot be read (" + error.code().message() + ")");
    }
    try {
        entropy_.reset(new dlf_entropy{EntropyModel(content.data(), content.size(), choose_kernels())});
    } catch (const Failure &failure) {
        if (failure.result == DLF_ERROR_BUNDLE_FOREIGN)
            fail(failure.result,
                 "Bundle " + folder_.string() + ": entropy.bin is not of a version that this dlf reads" + kRemedy);
        if (failure.result == DLF_ERROR_BUNDLE_BROKEN)
            broken(kEntropy, "breaks the rules of its format, so it is damaged");
        fail(failure.result,
             "this processor cannot run what DLF_ISA asks for; unset it, or set it to scalar, avx2, avx512 or neon");
    }
    Sha256 sha256;
    sha256.update(content.data(), content.size());
    const Sha256::Digest digest = sha256.finish();
    fingerprint_ = uint32_t{digest[0]} << 8 | digest[1];
    const std::string fingerprint = hexadecimal(digest.data(), 2);
    if (fingerprint != manifest_.fingerprint)
        broken(kEntropy, "has the fingerprint " + fingerprint + ", not the manifest's " + manifest_.fingerprint);
}

std::filesystem::path Bundle::stage(const std::string &name) {
    const std::set<std::string> names = stage_files(name);
    for (const std::string &each : names)
        file(each);
    return beside_each_other(names) / manifest_.stages.at(name).file;
}

// Backends refuse external data outside the graph's folder, and so they do where a link leads there.
std::filesystem::path Bundle::beside_each_other(const std::set<std::string> &names) {
    namespace fs = std::filesystem;
    try {
        if (std::none_of(names.begin(), names.end(), [&](const std::string &name) { return fs::is_symlink(folder_ / name); }))
            return folder_;
        if (links_replaced_ == nullptr)
            links_replaced_ = std::make_unique<TemporaryFolder>();
        for (const std::string &name : names) {
            const fs::path real = fs::canonical(folder_ / name), own = links_replaced_->path() / name;
            if (fs::exists(own))
                continue;
            std::error_code other_file_system;
            fs::create_hard_link(real, own, other_file_system);
            if (other_file_system)
                fs::copy_file(real, own);
        }
        return links_replaced_->path();
    } catch (const std::system_error &error) {
        fail(DLF_ERROR_BUNDLE_BROKEN, "Bundle " + folder_.string() +
                                          ": its files are links, and cannot be put into a temporary folder (" +
                                          error.code().message() + "); put the files themselves into the bundle, or set TMPDIR.");
    }
}

std::string Bundle::stage_digest(const std::string &name) {
    Sha256 sha256;
    for (const std::string &each : stage_files(name)) {
        const auto listed = manifest_.files.find(each);
        if (listed == manifest_.files.end())
            broken(each, "is not listed in manifest.json");
        const std::string line = listed->second.sha256 + " " + each + "\n";
        sha256.update(line.data(), line.size());
    }
    const Sha256::Digest digest = sha256.finish();
    return hexadecimal(digest.data(), digest.size());
}

std::set<std::string> Bundle::stage_files(const std::string &name) {
    const auto stage = manifest_.stages.find(name);
    if (stage == manifest_.stages.end())
        broken(kManifestName, "names no stage '" + name + "'");
    const std::string &graph = stage->second.file;
    std::set<std::string> names;
    try {
        File onnx(file(graph));
        names = external_data(onnx);
    } catch (const std::system_error &error) {
        broken(graph, "cannot be read (" + error.code().message() + ")");
    }
    names.insert(graph);
    return names;
}

std::filesystem::path Bundle::file(const std::string &name) {
    const std::filesystem::path path = folder_ / name;
    if (checked_.count(name) > 0)
        return path;
    const auto listed = manifest_.files.find(name);
    if (listed == manifest_.files.end())
        broken(name, "is not listed in manifest.json");
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
        broken(name, "is not a plain file name");
    const auto &[size, sha256] = listed->second;
    try {
        File found(path);
        if (found.size() != size)
            broken(name, "has " + std::to_string(found.size()) + " bytes, not " + std::to_string(size));
        if (sha256_of(found) != sha256)
            broken(name, "is not what its SHA-256 in manifest.json says");
    } catch (const std::system_error &error) {
        broken(name, "cannot be read (" + error.code().message() + ")");
    }
    checked_.insert(name);
    return path;
}

void Bundle::broken(const std::string &name, const std::string &fact) const {
    fail(DLF_ERROR_BUNDLE_BROKEN, "Bundle " + folder_.string() + ": " + name + " " + fact + kRemedy);
}

} // namespace dlf
