// The engines that `python -m dlf.export.engine` builds and keeps: which of them serve a stage on this GPU, and why another
// does not. The rules, the folder and the files are those of runtime/gpu/engines.py, which writes them; a test has each find
// what the other does. Any doubt makes an engine unused, with a reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "backends/batch_size.h"

namespace dlf {

// The sizes that an engine takes, each of n, h and w between its minimum and its maximum, and the one it is tuned for.
struct Profile {
    BatchSize min, opt, max;
};

// All that an engine depends on, but the sizes.
struct EngineKey {
    std::string stage;
    std::string graph; // Bundle::stage_digest
    std::string precision;
    std::string library; // of Python's module, "tensorrt" or "tensorrt_rtx"
    std::string version; // as that module spells it
    std::string gpu;     // "sm_89"; with its name, "sm_89 NVIDIA L4", in TensorRT, which tunes for one model
};

// An engine in the cache, as its sidecar tells.
struct Engine {
    std::filesystem::path path;
    std::vector<Profile> profiles; // in the order of its optimisation profiles
    uint64_t bytes;
    std::string sha256;
};

// Why an engine is not used: the end of a sentence that begins with its name.
struct UnusableEngine {
    std::string reason;
};

// The folder of the engines: dlf/engines in the user's cache folder.
std::filesystem::path engine_folder();

// The engines of exactly this key, sorted by name; their bytes are not read. For each other one of the stage a sentence is
// added to `reasons`.
std::vector<Engine> engines_of(const EngineKey &key, const std::filesystem::path &folder, std::vector<std::string> &reasons);

// An engine's bytes, checked. Throws an UnusableEngine.
std::string read_plan(const Engine &engine);

// The profile that serves a size best, the one of the smallest maximum; nothing if none takes it.
std::optional<size_t> choose_profile(const std::vector<Profile> &profiles, const BatchSize &size);

// Whether `a` is a tighter choice than `b`.
bool is_tighter(const Profile &a, const Profile &b);

} // namespace dlf
