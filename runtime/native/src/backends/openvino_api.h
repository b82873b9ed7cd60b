// OpenVINO's C API, as far as it is used here: declared again, since its library is opened at run time and need not be there
// when this one is built. A test holds the declarations against OpenVINO's own headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlf::openvino {

using Status = int; // 0: success

// Its numbers differ from release to release; so none are written here.
using ElementType = int;

struct Shape {
    int64_t rank;
    int64_t *dims;
};

struct Dimension { // from the least to the greatest
    int64_t least, greatest;
};

struct PartialShape {
    Dimension rank;
    Dimension *dims;
};

struct Version {
    const char *build_number;
    const char *description;
};

struct Core;
struct GraphModel; // ov_model
struct CompiledModel;
struct Port; // ov_output_const_port
struct Request;
struct Tensor;

// X(function, result, parameters)
#define DLF_OPENVINO_FUNCTIONS(X)                                                                                                \
    X(ov_get_last_err_msg, const char *, ())                                                                                     \
    X(ov_free, void, (const char *))                                                                                             \
    X(ov_get_openvino_version, Status, (Version *))                                                                              \
    X(ov_version_free, void, (Version *))                                                                                        \
    X(ov_core_create, Status, (Core **))                                                                                         \
    X(ov_core_free, void, (Core *))                                                                                              \
    X(ov_core_get_property, Status, (const Core *, const char *, const char *, char **))                                         \
    X(ov_core_read_model, Status, (const Core *, const char *, const char *, GraphModel **))                                     \
    X(ov_core_compile_model, Status, (const Core *, const GraphModel *, const char *, size_t, CompiledModel **, ...))            \
    X(ov_model_reshape, Status, (const GraphModel *, const char **, const PartialShape *, size_t))                               \
    X(ov_model_free, void, (GraphModel *))                                                                                       \
    X(ov_partial_shape_create_static, Status, (int64_t, const int64_t *, PartialShape *))                                        \
    X(ov_partial_shape_free, void, (PartialShape *))                                                                             \
    X(ov_compiled_model_free, void, (CompiledModel *))                                                                           \
    X(ov_compiled_model_inputs_size, Status, (const CompiledModel *, size_t *))                                                  \
    X(ov_compiled_model_input_by_index, Status, (const CompiledModel *, size_t, Port **))                                        \
    X(ov_compiled_model_outputs_size, Status, (const CompiledModel *, size_t *))                                                 \
    X(ov_compiled_model_output_by_index, Status, (const CompiledModel *, size_t, Port **))                                       \
    X(ov_compiled_model_create_infer_request, Status, (const CompiledModel *, Request **))                                       \
    X(ov_port_get_any_name, Status, (const Port *, char **))                                                                     \
    X(ov_port_get_element_type, Status, (const Port *, ElementType *))                                                           \
    X(ov_output_const_port_free, void, (Port *))                                                                                 \
    X(ov_infer_request_free, void, (Request *))                                                                                  \
    X(ov_infer_request_set_input_tensor_by_index, Status, (Request *, size_t, const Tensor *))                                   \
    X(ov_infer_request_get_output_tensor_by_index, Status, (const Request *, size_t, Tensor **))                                 \
    X(ov_infer_request_infer, Status, (Request *))                                                                               \
    X(ov_tensor_create_from_host_ptr, Status, (ElementType, Shape, void *, Tensor **))                                           \
    X(ov_tensor_get_shape, Status, (const Tensor *, Shape *))                                                                    \
    X(ov_tensor_get_byte_size, Status, (const Tensor *, size_t *))                                                               \
    X(ov_tensor_data, Status, (const Tensor *, void **))                                                                         \
    X(ov_tensor_free, void, (Tensor *))                                                                                          \
    X(ov_shape_free, Status, (Shape *))

struct Functions {
#define DLF_MEMBER(name, result, parameters) result(*name) parameters;
    DLF_OPENVINO_FUNCTIONS(DLF_MEMBER)
#undef DLF_MEMBER
};

} // namespace dlf::openvino
