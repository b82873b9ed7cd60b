// Reading the list of levels in a manifest.
#pragma once

#include <nlohmann/json.hpp>

#include "codec/level_list.h"

namespace dlf {

// Reads untrusted values: afterwards the steps follow on each other, and their tensors have shapes that fit. Throws a Failure,
// whose message says what is wrong with the manifest without naming it, or a Json::exception of a key that is missing or a value
// of another type.
LevelList read_level_list(const nlohmann::json &entry);

} // namespace dlf
