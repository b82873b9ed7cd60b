// A stand-in for CUDA's header: what TensorRT's interface takes of it.
#pragma once

typedef struct CUstream_st *cudaStream_t;
