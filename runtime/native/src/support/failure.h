// The exception for what the library refuses: a dlf_result and its message. api_guard.h catches it in every function of dlf.h,
// and also what the standard library throws, such as std::bad_alloc.
#pragma once

#include <string>
#include <utility>

#include "dlf.h"

namespace dlf {

struct Failure {
    dlf_result result;
    std::string message{}; // what is wrong and the remedy; empty if dlf_result_string says all
};

inline void require(bool condition, dlf_result otherwise) {
    if (!condition)
        throw Failure{otherwise};
}

[[noreturn]] inline void fail(dlf_result result, std::string message) { throw Failure{result, std::move(message)}; }

} // namespace dlf
