// A folder of bundles: of one model in several precisions, of which a backend takes the one that it runs fastest; or of several
// models, of different rates.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "codec/bundle.h"

namespace dlf {

// Opens the bundle in `folder`; or if that is a folder of bundles, all of one model, to keep the one whose precision comes first in
// `precisions`. A single one is taken whatever its precision. Of several models it is the one that writes files of `fingerprint`, or
// without one the one of the highest rate. Throws a Failure. The rules are those of runtime/bundles/folder.py; a test has both refuse
// the same folders.
std::unique_ptr<Bundle> open_best(const std::filesystem::path &folder, const std::vector<std::string> &precisions,
                                  const std::optional<std::string> &fingerprint);

} // namespace dlf
