// A stand-in for NVIDIA's header of TensorRT 10: the declarations that libdlf uses, written from TensorRT's documentation, so
// that the backend can be compiled and run where neither the header nor a GPU is. What is compiled with it works with the
// stand-in library (fake_nvinfer.cpp) alone: the order of the virtual functions is not NVIDIA's.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 14
#define NV_TENSORRT_PATCH 1
#define NV_TENSORRT_VERSION (NV_TENSORRT_MAJOR * 10000L + NV_TENSORRT_MINOR * 100L + NV_TENSORRT_PATCH * 1L)

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1 };
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class ExecutionContextAllocationStrategy : int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };

struct Dims {
    static constexpr int32_t MAX_DIMS = 8;
    int32_t nbDims;
    int64_t d[MAX_DIMS];
};

class ILogger {
public:
    enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual ~ILogger() = default;
    virtual void log(Severity severity, char const *message) noexcept = 0;
};

class IExecutionContext {
public:
    virtual ~IExecutionContext() noexcept = default;
    virtual bool setOptimizationProfileAsync(int32_t profile, cudaStream_t stream) noexcept = 0;
    virtual bool setInputShape(char const *name, Dims const &dims) noexcept = 0;
    virtual Dims getTensorShape(char const *name) const noexcept = 0;
    virtual bool setTensorAddress(char const *name, void *data) noexcept = 0;
    virtual int32_t inferShapes(int32_t count, char const **names) noexcept = 0;
    virtual size_t updateDeviceMemorySizeForShapes() noexcept = 0;
    virtual void setDeviceMemoryV2(void *memory, int64_t size) noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
public:
    virtual ~ICudaEngine() noexcept = default;
    virtual int32_t getNbIOTensors() const noexcept = 0;
    virtual char const *getIOTensorName(int32_t index) const noexcept = 0;
    virtual TensorIOMode getTensorIOMode(char const *name) const noexcept = 0;
    virtual DataType getTensorDataType(char const *name) const noexcept = 0;
    virtual IExecutionContext *createExecutionContext(
        ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC) noexcept = 0;
};

class IRuntime {
public:
    virtual ~IRuntime() noexcept = default;
    virtual ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept = 0;
};

} // namespace nvinfer1
