// What the stand-ins share. The environment variable FAKE_FAIL names the function that is to fail.
#pragma once

#include <cstdlib>
#include <cstring>

inline bool has_to_fail(const char *function) {
    const char *named = std::getenv("FAKE_FAIL");
    return named != nullptr && std::strcmp(named, function) == 0;
}

// Whether the calling thread has made the context current, and whether `size` bytes at `address` are memory of the GPU.
extern "C" bool fake_cuda_is_current();
extern "C" bool fake_cuda_has(const void *address, std::size_t size);

// Contexts, streams and buffers that have not been released.
extern "C" int fake_cuda_live();
