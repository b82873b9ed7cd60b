#include "codec/manifest.h"

#include "codec/level_list_json.h"
#include "support/failure.h"
#include "support/formats.h"

namespace dlf {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 16; // of nested values; readers that call themselves for each are safe then

Json parse(std::string_view text) {
    if (text.size() > kMaxManifestBytes)
        fail(DLF_ERROR_BUNDLE_BROKEN, "is larger than " + std::to_string(kMaxManifestBytes) + " bytes");
    if (text.find('\0') != std::string_view::npos) // where the parser would stop reading
        fail(DLF_ERROR_BUNDLE_BROKEN, "is not JSON (it has a byte 0)");
    const auto check_depth = [](int depth, Json::parse_event_t, Json &) {
        if (depth > kMaxDepth)
            fail(DLF_ERROR_BUNDLE_BROKEN, "nests values deeper than " + std::to_string(kMaxDepth) + " levels");
        return true;
    };
    try {
        return Json::parse(text, check_depth);
    } catch (const Json::exception &error) {
        fail(DLF_ERROR_BUNDLE_BROKEN, std::string("is not JSON (") + error.what() + ")");
    }
}

uint64_t size_of(const Json &entry) {
    const Json &bytes = entry.at("bytes");
    if (!bytes.is_number_unsigned())
        fail(DLF_ERROR_BUNDLE_BROKEN, "lacks or garbles a field (\"bytes\" is no size)");
    return bytes.get<uint64_t>();
}

Manifest::Stage stage_from(const Json &entry) {
    Manifest::Stage stage = {entry.at("file").get<std::string>(), entry.at("precision").get<std::string>(), {}};
    if (entry.value("tf32", false))
        stage.precision = "tf32";
    for (const Json &input : entry.at("inputs").get_ref<const Json::array_t &>()) {
        Manifest::Port port = {input.at("name").get<std::string>(), {}};
        for (const Json &side : input.at("shape"))
            port.shape.push_back(side.is_number_unsigned() ? side.dump() : side.get<std::string>());
        stage.inputs.push_back(std::move(port));
    }
    return stage;
}

MemoryNeed need_from(const Json &entry) {
    const MemoryNeed need = {entry.at("bytes").get<double>(), entry.at("bytes_per_pixel").get<double>()};
    if (!(need.bytes >= 0 && need.bytes_per_pixel > 0)) // JSON has no NaN, and the parser refuses numbers that are too large
        fail(DLF_ERROR_BUNDLE_BROKEN, "lacks or garbles a field (\"memory\" has a size that is none)");
    return need;
}

// Bundles that were written before large images, or stages that are released, had measurements of their own tell one for all.
SizedNeed sized_need_from(const Json &entry) {
    SizedNeed need = {need_from(entry), need_from(entry.contains("large") ? entry.at("large") : entry), std::nullopt};
    if (entry.contains("released"))
        need.released = need_from(entry.at("released"));
    return need;
}

// Whether the bundle has what the list of levels names.
void check_levels(const LevelList &levels, const Manifest &manifest) {
    if (manifest.stages.count(levels.stage) == 0)
        fail(DLF_ERROR_BUNDLE_BROKEN, "lists levels above a stage that it does not name");
    const auto file = manifest.files.find(levels.file);
    if (file == manifest.files.end())
        fail(DLF_ERROR_BUNDLE_BROKEN, "lists levels whose file of weights it does not name");
    const uint64_t bytes = file->second.bytes;
    uint64_t left = bytes; // if tensors shared bytes, a small file could fill the memory
    const auto check = [&](const LevelTensor &tensor) {
        if (tensor.offset > bytes || tensor.bytes() > bytes - tensor.offset)
            fail(DLF_ERROR_BUNDLE_BROKEN, "lists a tensor of the levels that does not lie within the file of weights");
        if (tensor.bytes() > left)
            fail(DLF_ERROR_BUNDLE_BROKEN, "lists tensors of the levels that together are larger than the file of weights");
        left -= tensor.bytes();
    };
    for (const ListedStep &step : levels.steps) {
        check(step.weight);
        check(step.bias);
        for (const std::optional<LevelTensor> *tensor : {&step.scale, &step.gamma, &step.beta})
            if (tensor->has_value())
                check(**tensor);
    }
}

} // namespace

Manifest parse_manifest(std::string_view text) {
    const Json json = parse(text);
    if (!json.is_object() || !json.contains("format") || json.at("format") != kBundleFormat)
        fail(DLF_ERROR_BUNDLE_FOREIGN, "has another format, so this is not a bundle; make one with dlf-export");
    const auto version = json.find("format_version");
    if (version == json.end() || *version != kBundleVersion)
        fail(DLF_ERROR_BUNDLE_FOREIGN,
             "has format version " + (version != json.end() && version->is_number() ? version->dump() : "unknown") +
                 ", and this dlf reads version " + std::to_string(kBundleVersion) + ": update dlf, or export the bundle again");
    try {
        Manifest manifest;
        manifest.name = json.at("model").at("name").get<std::string>();
        manifest.license = json.at("model").value("license", "");
        if (json.at("model").contains("bits_per_pixel"))
            manifest.bits_per_pixel = json.at("model").at("bits_per_pixel").get<double>();
        manifest.fingerprint = json.at("fingerprint").get<std::string>();
        manifest.precision = json.at("precision").get<std::string>();
        for (const auto &[name, entry] : json.at("files").get_ref<const Json::object_t &>())
            manifest.files[name] = {size_of(entry), entry.at("sha256").get<std::string>()};
        for (const auto &[name, entry] : json.at("stages").get_ref<const Json::object_t &>())
            manifest.stages[name] = stage_from(entry);
        const Json memory = json.value("memory", Json::object());
        for (const auto &[backend, entry] : memory.get_ref<const Json::object_t &>()) {
            manifest.memory.encode[backend] = sized_need_from(entry.at("encode"));
            manifest.memory.decode[backend] = sized_need_from(entry.at("decode"));
        }
        const Json &stages = json.at("stages");
        const char *generator = kDecoderStages.back();
        if (stages.contains(generator) && stages.at(generator).contains("levels")) {
            manifest.levels = read_level_list(stages.at(generator).at("levels"));
            check_levels(*manifest.levels, manifest);
        }
        return manifest;
    } catch (const Json::exception &error) { // a key that is missing, or a value of another type
        fail(DLF_ERROR_BUNDLE_BROKEN, std::string("lacks or garbles a field (") + error.what() + ")");
    }
}

} // namespace dlf
