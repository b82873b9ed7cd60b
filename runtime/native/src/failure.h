// The one exception of the library: a dlf_result on its way to the C border, where api.cpp catches it.
#pragma once

#include "dlf.h"

namespace dlf {

struct Failure {
    dlf_result result;
};

inline void require(bool condition, dlf_result otherwise) {
    if (!condition)
        throw Failure{otherwise};
}

} // namespace dlf
