// A folder of bundles: one model in several precisions, of which a backend takes the one that it runs fastest.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "codec/bundle.h"

namespace dlf {

// Opens the bundle in `folder`; or if that is a folder of bundles, all of them, to keep the one whose precision comes first in
// `precisions`. A single one is taken whatever its precision. Throws a Failure. The rules are those of
// runtime/bundles/__init__.py; a test has both refuse the same folders.
std::unique_ptr<Bundle> open_best(const std::filesystem::path &folder, const std::vector<std::string> &precisions);

} // namespace dlf
