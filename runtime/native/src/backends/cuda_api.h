// CUDA's driver API, as far as it is used here: declared again, since its library is opened at run time and need not be there
// when this one is built. A test holds the declarations against CUDA's own header.
#pragma once

#include <cstddef>

struct CUctx_st;
struct CUstream_st; // what TensorRT's cudaStream_t points to, too

namespace dlf::cuda {

using Result = int; // 0: success
using Device = int;
using Address = unsigned long long; // of device memory

constexpr Result kOutOfMemory = 2;
constexpr int kComputeCapabilityMajor = 75, kComputeCapabilityMinor = 76; // attributes of a device
constexpr unsigned kNonBlocking = 1;                                      // a stream that does not wait for the default one

// X(function, parameters), by the names that the library exports: of some, a later version than the first
#define DLF_CUDA_FUNCTIONS(X)                                                                                                    \
    X(cuInit, (unsigned))                                                                                                        \
    X(cuGetErrorString, (Result, const char **))                                                                                 \
    X(cuDeviceGet, (Device *, int))                                                                                              \
    X(cuDeviceGetName, (char *, int, Device))                                                                                    \
    X(cuDeviceGetAttribute, (int *, int, Device))                                                                                \
    X(cuDevicePrimaryCtxRetain, (CUctx_st **, Device))                                                                           \
    X(cuDevicePrimaryCtxRelease_v2, (Device))                                                                                    \
    X(cuCtxPushCurrent_v2, (CUctx_st *))                                                                                         \
    X(cuCtxPopCurrent_v2, (CUctx_st **))                                                                                         \
    X(cuStreamCreate, (CUstream_st **, unsigned))                                                                                \
    X(cuStreamSynchronize, (CUstream_st *))                                                                                      \
    X(cuStreamDestroy_v2, (CUstream_st *))                                                                                       \
    X(cuMemAlloc_v2, (Address *, size_t))                                                                                        \
    X(cuMemFree_v2, (Address))                                                                                                   \
    X(cuMemcpyHtoDAsync_v2, (Address, const void *, size_t, CUstream_st *))                                                      \
    X(cuMemcpyDtoHAsync_v2, (void *, Address, size_t, CUstream_st *))

struct Functions {
#define DLF_MEMBER(name, parameters) Result(*name) parameters;
    DLF_CUDA_FUNCTIONS(DLF_MEMBER)
#undef DLF_MEMBER
};

} // namespace dlf::cuda
