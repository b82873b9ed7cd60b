// What the functions of the C border share: checks of what a caller of C may get wrong, and exceptions turned into results.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "support/failure.h"
#include "support/utf8.h"

namespace dlf {

constexpr dlf_limits kDefaultLimits = {sizeof(dlf_limits), uint64_t{1} << 26, 16384};

// Runs `body`; only it may throw. `message`, if any, receives why it failed, and is empty where it did not.
template <class Body> dlf_result guarded(Body body, std::string *message = nullptr) noexcept {
    dlf_result result = DLF_OK;
    std::string reason;
    try {
        body();
    } catch (Failure &failure) {
        result = failure.result;
        reason = std::move(failure.message);
    } catch (...) { // std::bad_alloc, or std::length_error: a size that no memory could hold
        result = DLF_ERROR_OUT_OF_MEMORY;
    }
    if (message != nullptr) {
        *message = printable(std::move(reason));
        if (result != DLF_OK && message->empty()) {
            try {
                *message = dlf_result_string(result);
            } catch (...) { // no memory for the words either
            }
        }
    }
    return result;
}

// Hands a reason over to a caller's buffer, cut to `size` bytes with the 0 at its end. NULL is allowed.
inline void hand_over(std::string reason, char *message, size_t size) {
    if (message == nullptr || size == 0)
        return;
    reason.resize(std::min(reason.size(), size - 1));
    reason = printable(std::move(reason)); // a character may have been cut in two
    std::copy_n(reason.c_str(), reason.size() + 1, message);
}

// Opens an object of the API, which is handed over also where that fails, so that it can tell why.
template <class Object, class Body> dlf_result open_object(Object **out, Body body) noexcept {
    if (out == nullptr)
        return DLF_ERROR_INVALID_ARGUMENT;
    *out = new (std::nothrow) Object;
    if (*out == nullptr)
        return DLF_ERROR_OUT_OF_MEMORY;
    return guarded([&] { body(**out); }, &(*out)->message);
}

// Why an object's last call failed; NULL stands for one that there was no memory for.
template <class Object> const char *message_of(const Object *object) noexcept {
    return object == nullptr ? dlf_result_string(DLF_ERROR_OUT_OF_MEMORY) : object->message.c_str();
}

inline void check(bool condition) { require(condition, DLF_ERROR_INVALID_ARGUMENT); }

// Whether `options`, which may be NULL, are as large as this version knows them.
template <class Struct> void check_struct(const Struct *options) {
    check(options == nullptr || options->struct_size >= sizeof *options);
}

// `count` bytes, as a buffer of the caller's.
inline void hand_over(const uint8_t *bytes, size_t count, uint8_t **out, size_t *size) {
    auto *buffer = static_cast<uint8_t *>(std::malloc(std::max<size_t>(count, 1)));
    if (buffer == nullptr)
        throw std::bad_alloc();
    std::copy_n(bytes, count, buffer);
    *out = buffer;
    *size = count;
}

// Fills a struct of the caller's, whose later fields it may not have.
template <class Struct> void fill(Struct *out, Struct full) {
    full.struct_size = out->struct_size;
    std::memcpy(out, &full, std::min(out->struct_size, sizeof full));
}

} // namespace dlf
