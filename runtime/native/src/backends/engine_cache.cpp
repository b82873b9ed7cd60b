#include "backends/engine_cache.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/utsname.h>

#include "support/files.h"
#include "support/sha256.h"

namespace dlf {
namespace {

using Json = nlohmann::json;

constexpr int kBuild = 2; // BUILD of runtime/gpu/engines.py
constexpr size_t kPiece = size_t{1} << 20;

uint64_t volume(const BatchSize &size) { return size.n * size.h * size.w; }

std::pair<uint64_t, uint64_t> looseness(const Profile &profile) {
    return {volume(profile.max), volume(profile.max) - volume(profile.min)};
}

bool covers(const Profile &profile, const BatchSize &size) {
    const auto within = [&](uint64_t BatchSize::*side) {
        return profile.min.*side <= size.*side && size.*side <= profile.max.*side;
    };
    return within(&BatchSize::n) && within(&BatchSize::h) && within(&BatchSize::w);
}

// As Python's sysconfig.get_platform(): "linux-x86_64".
std::string platform() {
    utsname system = {};
    uname(&system);
    std::string name = system.sysname;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return name + "-" + system.machine;
}

// A stage's name as a part of a file's name.
std::string file_name(std::string stage) {
    std::replace_if(stage.begin(), stage.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return stage;
}

std::string read(const std::filesystem::path &path) {
    File file(path);
    std::string content;
    while (file.append_to(content, kPiece))
        ;
    return content;
}

BatchSize size_from(const Json &json) {
    const auto sides = json.get<std::array<uint64_t, 3>>();
    return {sides[0], sides[1], sides[2]};
}

// How an engine's key differs from ours; empty if it does not.
std::string differences(const Json &its, const EngineKey &key) {
    const std::pair<const char *, Json> ours[] = {
        {"stage", key.stage},     {"graph", key.graph}, {"precision", key.precision}, {"library", key.library},
        {"version", key.version}, {"gpu", key.gpu},     {"platform", platform()},     {"build", kBuild}};
    std::string text;
    for (const auto &[name, value] : ours)
        if (its.at(name) != value)
            text += (text.empty() ? "" : "; ") + std::string(name) + " " + its.at(name).dump() + ", not " + value.dump();
    return text;
}

Engine usable_engine(const std::filesystem::path &path, const EngineKey &key) {
    std::filesystem::path sidecar = path;
    sidecar.replace_extension(".json");
    try {
        const Json json = Json::parse(read(sidecar));
        Engine engine = {path, {}, json.at("bytes").get<uint64_t>(), json.at("sha256").get<std::string>()};
        for (const Json &profile : json.at("profiles"))
            engine.profiles.push_back({size_from(profile.at(0)), size_from(profile.at(1)), size_from(profile.at(2))});
        if (const std::string text = differences(json.at("key"), key); !text.empty())
            throw UnusableEngine{"was built for " + text};
        return engine;
    } catch (const std::system_error &error) {
        if (error.code() == std::errc::no_such_file_or_directory)
            throw UnusableEngine{"has no sidecar, so that it was not finished"};
        throw UnusableEngine{"has a sidecar that cannot be read (" + error.code().message() + ")"};
    } catch (const Json::exception &error) {
        throw UnusableEngine{std::string("has a sidecar that lacks or garbles a field (") + error.what() + ")"};
    }
}

} // namespace

std::filesystem::path engine_folder() {
    const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
    const std::filesystem::path folder =
        cache != nullptr && *cache != 0 ? cache : std::filesystem::path(home == nullptr ? "/dev/null" : home) / ".cache";
    return folder / "dlf" / "engines";
}

std::vector<Engine> engines_of(const EngineKey &key, const std::filesystem::path &folder, std::vector<std::string> &reasons) {
    const std::string prefix = file_name(key.stage) + "-";
    std::vector<std::filesystem::path> paths;
    std::error_code ignored; // a folder that is not there has no engines
    for (std::filesystem::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored))
        if (entry->path().extension() == ".engine" && entry->path().filename().string().rfind(prefix, 0) == 0)
            paths.push_back(entry->path());
    std::sort(paths.begin(), paths.end());
    std::vector<Engine> engines;
    for (const std::filesystem::path &path : paths) {
        try {
            engines.push_back(usable_engine(path, key));
        } catch (const UnusableEngine &unusable) {
            reasons.push_back(path.filename().string() + " is not used: it " + unusable.reason + ".");
        }
    }
    if (paths.empty())
        reasons.push_back("No engine of stage " + key.stage + " is in " + folder.string() + ".");
    return engines;
}

std::string read_plan(const Engine &engine) {
    std::string plan;
    try {
        plan = read(engine.path);
    } catch (const std::system_error &error) {
        throw UnusableEngine{"cannot be read (" + error.code().message() + ")"};
    }
    if (plan.size() != engine.bytes)
        throw UnusableEngine{"has " + std::to_string(plan.size()) + " bytes, not " + std::to_string(engine.bytes)};
    Sha256 sha256;
    sha256.update(plan.data(), plan.size());
    const Sha256::Digest digest = sha256.finish();
    if (hexadecimal(digest.data(), digest.size()) != engine.sha256)
        throw UnusableEngine{"is not what the SHA-256 in its sidecar says"};
    return plan;
}

std::optional<size_t> choose_profile(const std::vector<Profile> &profiles, const BatchSize &size) {
    std::optional<size_t> chosen;
    for (size_t i = 0; i < profiles.size(); ++i)
        if (covers(profiles[i], size) && (!chosen || is_tighter(profiles[i], profiles[*chosen])))
            chosen = i;
    return chosen;
}

bool is_tighter(const Profile &a, const Profile &b) { return looseness(a) < looseness(b); }

} // namespace dlf
