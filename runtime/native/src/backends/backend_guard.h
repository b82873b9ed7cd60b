// The border of a built-in backend's function table: exceptions turned into results and messages.
#pragma once

#include <cstddef>
#include <cstdio>
#include <exception>
#include <new>

#include "support/failure.h"

namespace dlf {

// Runs the body of a table's function, which may throw.
template <class Body> dlf_result reported(char *message, size_t message_size, Body body) noexcept {
    try {
        body();
        return DLF_OK;
    } catch (const Failure &failure) {
        std::snprintf(message, message_size, "%s", failure.message.c_str());
        return failure.result;
    } catch (const std::bad_alloc &) {
        return DLF_ERROR_OUT_OF_MEMORY;
    } catch (const std::exception &error) {
        std::snprintf(message, message_size, "%s", error.what());
        return DLF_ERROR_BACKEND_FAILED;
    }
}

} // namespace dlf
