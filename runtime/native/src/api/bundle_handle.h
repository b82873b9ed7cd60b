// What a dlf_bundle is.
#pragma once

#include <memory>
#include <string>

#include "codec/bundle.h"
#include "dlf.h"

struct dlf_bundle {
    std::unique_ptr<dlf::Bundle> bundle{}; // NULL where it did not open
    std::string text{};                    // what the last call handed over
    std::string message{};
};
