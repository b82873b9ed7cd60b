#include "codec/bundle_folder.h"

#include <algorithm>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "support/failure.h"

namespace dlf {
namespace {

namespace fs = std::filesystem;

// The folders of the bundles in a folder, sorted; none if it is a bundle itself.
std::vector<fs::path> bundles_in(const fs::path &folder) {
    std::vector<fs::path> found;
    std::error_code ignored; // of a folder that cannot be read, which is refused as no bundle
    if (fs::exists(folder / kManifestName, ignored))
        return found;
    for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored))
        if (fs::exists(entry->path() / kManifestName, ignored))
            found.push_back(entry->path());
    std::sort(found.begin(), found.end());
    return found;
}

std::string joined(const std::vector<std::string> &words) {
    std::string text;
    for (const std::string &word : words)
        text += (text.empty() ? "" : ", ") + word;
    return text;
}

std::string name_of(const Bundle &bundle) { return bundle.folder().filename().string(); }

[[noreturn]] void foreign(const fs::path &folder, const std::string &fact) {
    fail(DLF_ERROR_BUNDLE_FOREIGN, "Folder " + folder.string() + " holds " + fact);
}

// The bundles of one model in a folder.
struct Listed {
    std::string fingerprint;
    std::vector<fs::path> bundles;
    std::optional<double> bits_per_pixel;
};

// The models of bundles, in the bundles' order.
std::vector<Listed> models_of(const std::vector<fs::path> &bundles) {
    std::vector<Listed> models;
    for (const fs::path &bundle : bundles) {
        std::string text;
        const Manifest manifest = read_manifest(bundle, text);
        auto model = std::find_if(models.begin(), models.end(),
                                  [&](const Listed &each) { return each.fingerprint == manifest.fingerprint; });
        if (model == models.end())
            model = models.insert(models.end(), Listed{manifest.fingerprint, {}, {}});
        model->bundles.push_back(bundle);
        if (!model->bits_per_pixel)
            model->bits_per_pixel = manifest.bits_per_pixel;
    }
    return models;
}

const Listed &of_highest_rate(const fs::path &folder, const std::vector<Listed> &models) {
    for (const Listed &model : models)
        if (models.size() > 1 && !model.bits_per_pixel)
            foreign(folder, "several models, and the rate of " + model.bundles.front().filename().string() + " (" +
                                model.fingerprint +
                                ") is not known; name one of them, or run python -m dlf.export.rate on its bundles.");
    const Listed *best = &models.front();
    for (const Listed &model : models)
        if (model.bits_per_pixel >= best->bits_per_pixel)
            best = &model;
    return *best;
}

const Listed &that_wrote(const std::string &fingerprint, const fs::path &folder, const std::vector<Listed> &models) {
    std::vector<std::string> there;
    for (const Listed &model : models) {
        if (model.fingerprint == fingerprint)
            return model;
        there.push_back(model.fingerprint);
    }
    fail(DLF_ERROR_WRONG_MODEL, "it was written with model " + fingerprint + ", and the folder " + folder.string() +
                                    " holds models " + joined(there) + "; decode it with the bundle that wrote it");
}

} // namespace

std::unique_ptr<Bundle> open_best(const fs::path &folder, const std::vector<std::string> &precisions,
                                  const std::optional<std::string> &fingerprint) {
    const std::vector<fs::path> inside = bundles_in(folder);
    if (inside.empty())
        return std::make_unique<Bundle>(folder);
    const std::vector<Listed> models = models_of(inside);
    const Listed &model =
        fingerprint && models.size() > 1 ? that_wrote(*fingerprint, folder, models) : of_highest_rate(folder, models);
    std::map<std::string, std::unique_ptr<Bundle>> found; // by precision
    for (const fs::path &each : model.bundles) {
        auto bundle = std::make_unique<Bundle>(each);
        std::unique_ptr<Bundle> &place = found[bundle->precision()];
        if (place != nullptr)
            foreign(folder, "two bundles of one model in " + bundle->precision() + ", " + name_of(*place) + " and " +
                                name_of(*bundle) + "; name one of them.");
        place = std::move(bundle);
    }
    if (found.size() == 1)
        return std::move(found.begin()->second);
    for (const std::string &precision : precisions)
        if (const auto best = found.find(precision); best != found.end())
            return std::move(best->second);
    std::vector<std::string> there;
    there.reserve(found.size());
    for (const auto &[precision, bundle] : found)
        there.push_back(precision);
    foreign(folder, "bundles in " + joined(there) + ", and " + joined(precisions) + " are known.");
}

} // namespace dlf
