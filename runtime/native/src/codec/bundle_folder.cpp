#include "codec/bundle_folder.h"

#include <algorithm>
#include <map>
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

std::string model_of(const Bundle &bundle) { return name_of(bundle) + " (" + bundle.fingerprint_text() + ")"; }

[[noreturn]] void foreign(const fs::path &folder, const std::string &fact) {
    fail(DLF_ERROR_BUNDLE_FOREIGN, "Folder " + folder.string() + " holds " + fact);
}

} // namespace

std::unique_ptr<Bundle> open_best(const fs::path &folder, const std::vector<std::string> &precisions) {
    std::map<std::string, std::unique_ptr<Bundle>> found; // by precision
    for (const fs::path &each : bundles_in(folder)) {
        auto bundle = std::make_unique<Bundle>(each);
        if (!found.empty() && found.begin()->second->fingerprint() != bundle->fingerprint())
            foreign(folder, "different models, " + model_of(*found.begin()->second) + " and " + model_of(*bundle) +
                                "; name one of them.");
        std::unique_ptr<Bundle> &place = found[bundle->precision()];
        if (place != nullptr)
            foreign(folder, "two bundles in " + bundle->precision() + ", " + name_of(*place) + " and " + name_of(*bundle) +
                                "; name one of them.");
        place = std::move(bundle);
    }
    if (found.empty())
        return std::make_unique<Bundle>(folder);
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
