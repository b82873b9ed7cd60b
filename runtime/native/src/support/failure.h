// The one exception of the library: a dlf_result on its way to the C border, where api.cpp catches it.
#pragma once

#include <string>
#include <utility>

#include "dlf.h"

namespace dlf {

struct Failure {
    dlf_result result;
    std::string message{}; // the fact and the remedy, where more is known than the result's own text
};

inline void require(bool condition, dlf_result otherwise) {
    if (!condition)
        throw Failure{otherwise};
}

[[noreturn]] inline void fail(dlf_result result, std::string message) { throw Failure{result, std::move(message)}; }

} // namespace dlf
