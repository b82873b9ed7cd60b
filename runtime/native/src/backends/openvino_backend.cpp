#include "backends/openvino_backend.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>

#include "backends/backend_guard.h"
#include "backends/openvino_api.h"
#include "support/failure.h"
#include "support/formats.h"
#include "support/mapped_pages.h"
#include "support/shared_library.h"

namespace dlf {
namespace {

using namespace openvino;

constexpr const char *kLibrary = "libopenvino_c.so";

// An object of OpenVINO's, and the function that releases it.
template <class T> using Owned = std::unique_ptr<T, void (*)(T *)>;

class OpenVINO : public Functions {
public:
    OpenVINO(const std::string &file, uint32_t threads) : threads_(std::to_string(threads)), limited_(threads > 0) {
        const SharedLibrary library("OpenVINO's C library", file,
                                    "run: pip install openvino, and name its folder openvino/libs in DLF_OPENVINO");
#define DLF_LOOK_UP(name, result, parameters) library.look_up(name, #name);
        DLF_OPENVINO_FUNCTIONS(DLF_LOOK_UP)
#undef DLF_LOOK_UP
        Core *core = nullptr;
        char *device = nullptr;
        Version version = {};
        check(ov_core_create(&core));
        core_ = {core, ov_core_free};
        check(ov_core_get_property(core, "CPU", "FULL_DEVICE_NAME", &device));
        device_ = device;
        ov_free(device);
        check(ov_get_openvino_version(&version));
        version_ = version.build_number;
        ov_version_free(&version);
        float32_ = find_float32();
    }

    const std::string &device() const { return device_; }
    const std::string &version() const { return version_; }
    ElementType float32() const { return float32_; }

    // A stage's graph; where inputs are given, for their shapes alone.
    Owned<CompiledModel> compile(const char *file, const std::vector<dlf_tensor> &inputs) const {
        GraphModel *read = nullptr;
        check(ov_core_read_model(core_.get(), file, nullptr, &read));
        const Owned<GraphModel> model(read, ov_model_free);
        if (!inputs.empty())
            reshape(model.get(), inputs);
        CompiledModel *compiled = nullptr;
        // By its own default the plugin rounds where the processor makes it quick: to bfloat16 with AMX, and what meets int8
        // weights to int8 with AVX-512 VNNI.
        const size_t arguments = limited_ ? 8 : 6; // without a limit the last two are not read
        check(ov_core_compile_model(core_.get(), model.get(), "CPU", arguments, &compiled, "INFERENCE_PRECISION_HINT", "f32",
                                    "DYNAMIC_QUANTIZATION_GROUP_SIZE", "0", "PERFORMANCE_HINT", "LATENCY",
                                    "INFERENCE_NUM_THREADS", threads_.c_str()));
        return {compiled, ov_compiled_model_free};
    }

    void check(Status status) const {
        if (status == 0)
            return;
        const char *message = ov_get_last_err_msg();
        fail(DLF_ERROR_BACKEND_FAILED, message == nullptr ? "OpenVINO gives no reason" : message);
    }

private:
    void reshape(const GraphModel *model, const std::vector<dlf_tensor> &inputs) const {
        std::vector<const char *> names;
        std::vector<PartialShape> shapes;
        std::vector<std::unique_ptr<PartialShape, void (*)(PartialShape *)>> owned;
        shapes.reserve(inputs.size()); // so that none moves
        for (const dlf_tensor &input : inputs) {
            int64_t dims[DLF_MAX_RANK];
            std::copy_n(input.shape, input.rank, dims);
            PartialShape shape = {};
            check(ov_partial_shape_create_static(static_cast<int64_t>(input.rank), dims, &shape));
            names.push_back(input.name);
            shapes.push_back(shape);
            owned.emplace_back(&shapes.back(), ov_partial_shape_free);
        }
        check(ov_model_reshape(model, names.data(), shapes.data(), shapes.size()));
    }

    // The number of float32, which differs from release to release. In all of them it is the first type of four bytes.
    ElementType find_float32() const {
        constexpr ElementType kLast = 8; // float32 is 4 or 5
        for (ElementType type = 0; type <= kLast; ++type) {
            alignas(8) char value[8] = {};
            int64_t one = 1;
            Tensor *raw = nullptr;
            size_t bytes = 0;
            if (ov_tensor_create_from_host_ptr(type, Shape{1, &one}, value, &raw) != 0)
                continue; // no type that a tensor has
            const Owned<Tensor> tensor(raw, ov_tensor_free);
            if (ov_tensor_get_byte_size(raw, &bytes) == 0 && bytes == sizeof(float))
                return type;
        }
        fail(DLF_ERROR_BACKEND_FAILED, "this OpenVINO has no tensors of float32");
    }

    std::string threads_;
    bool limited_;
    ElementType float32_ = 0;
    std::string device_, version_;
    Owned<Core> core_{nullptr, nullptr};
};

struct Run {
    Owned<Request> request;
    std::vector<Owned<Tensor>> outputs;
};

class LoadedStage {
public:
    // Where inputs are given, for one run on such inputs.
    LoadedStage(const OpenVINO &openvino, const char *file, const std::vector<dlf_tensor> &inputs)
        : ov_(openvino), file_(file), compiled_(compile(openvino, file_, inputs)) {
        size_t count = 0;
        ov_.check(ov_.ov_compiled_model_inputs_size(compiled_.get(), &count));
        for (size_t i = 0; i < count; ++i)
            inputs_.push_back(port(ov_.ov_compiled_model_input_by_index, i));
        ov_.check(ov_.ov_compiled_model_outputs_size(compiled_.get(), &count));
        if (count > DLF_MAX_OUTPUTS)
            fail(DLF_ERROR_BACKEND_FAILED, "it has " + std::to_string(count) + " outputs");
        for (size_t i = 0; i < count; ++i)
            outputs_.push_back(port(ov_.ov_compiled_model_output_by_index, i));
    }

    std::unique_ptr<Run> run(const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs) {
        auto run = std::make_unique<Run>(Run{request(), {}});
        std::vector<Owned<Tensor>> tensors; // which a request does not keep alive
        for (size_t i = 0; i < inputs_.size(); ++i) {
            const auto given =
                std::find_if(inputs, inputs + input_count, [&](const dlf_tensor &input) { return inputs_[i] == input.name; });
            if (given == inputs + input_count)
                fail(DLF_ERROR_BACKEND_FAILED, "it has an input '" + inputs_[i] + "', which the codec does not give");
            tensors.push_back(tensor(*given));
            ov_.check(ov_.ov_infer_request_set_input_tensor_by_index(run->request.get(), i, tensors.back().get()));
        }
        {
            std::optional<MappedPagesReleased> released;
            if (fresh_.exchange(false))
                released.emplace(file_);
            ov_.check(ov_.ov_infer_request_infer(run->request.get()));
        }
        for (size_t i = 0; i < outputs_.size(); ++i) {
            Tensor *tensor = nullptr;
            ov_.check(ov_.ov_infer_request_get_output_tensor_by_index(run->request.get(), i, &tensor));
            run->outputs.emplace_back(tensor, ov_.ov_tensor_free);
            outputs[i] = described(tensor, outputs_[i]);
        }
        return run;
    }

    size_t output_count() const { return outputs_.size(); }

    void take_back(Run *run) noexcept {
        std::unique_ptr<Run> taken(run);
        taken->outputs.clear();
        try {
            const std::lock_guard<std::mutex> lock(mutex_);
            free_.push_back(std::move(taken->request));
        } catch (...) { // no memory to keep it
        }
    }

private:
    static Owned<CompiledModel> compile(const OpenVINO &openvino, const std::filesystem::path &file,
                                        const std::vector<dlf_tensor> &inputs) {
        const MappedPagesReleased released(file);
        return openvino.compile(file.c_str(), size_of(file) > kLargestKeptStage ? inputs : std::vector<dlf_tensor>());
    }

    // Bytes of a graph and of the weights beside it.
    static uint64_t size_of(const std::filesystem::path &file) {
        std::filesystem::path weights = file;
        weights += ".data";
        std::error_code missing;
        const uint64_t beside = std::filesystem::file_size(weights, missing);
        return std::filesystem::file_size(file) + (missing ? 0 : beside);
    }

    using Get = Status (*)(const CompiledModel *, size_t, Port **);

    // The name of an input or output.
    std::string port(Get get, size_t index) const {
        Port *raw = nullptr;
        ov_.check(get(compiled_.get(), index, &raw));
        const Owned<Port> port(raw, ov_.ov_output_const_port_free);
        char *name = nullptr;
        ov_.check(ov_.ov_port_get_any_name(raw, &name));
        std::string found = name;
        ov_.ov_free(name);
        ElementType type = 0;
        ov_.check(ov_.ov_port_get_element_type(raw, &type));
        if (type != ov_.float32())
            fail(DLF_ERROR_BUNDLE_BROKEN, "its '" + found + "' is not of float32; export the bundle again");
        return found;
    }

    Owned<Request> request() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!free_.empty()) {
                Owned<Request> request = std::move(free_.back());
                free_.pop_back();
                return request;
            }
        }
        Request *request = nullptr;
        ov_.check(ov_.ov_compiled_model_create_infer_request(compiled_.get(), &request));
        return {request, ov_.ov_infer_request_free};
    }

    Owned<Tensor> tensor(const dlf_tensor &input) const {
        int64_t dims[DLF_MAX_RANK];
        std::copy_n(input.shape, input.rank, dims);
        Tensor *raw = nullptr;
        // Inputs are only read, whatever the type of the pointer says.
        ov_.check(ov_.ov_tensor_create_from_host_ptr(ov_.float32(), Shape{static_cast<int64_t>(input.rank), dims},
                                                     const_cast<float *>(input.data), &raw));
        return {raw, ov_.ov_tensor_free};
    }

    dlf_tensor described(const Tensor *tensor, const std::string &name) const {
        dlf_tensor output = {};
        output.name = name.c_str();
        Shape shape = {};
        ov_.check(ov_.ov_tensor_get_shape(tensor, &shape));
        const auto rank = static_cast<size_t>(shape.rank);
        if (rank <= DLF_MAX_RANK)
            std::copy_n(shape.dims, rank, output.shape);
        ov_.ov_shape_free(&shape);
        if (rank > DLF_MAX_RANK)
            fail(DLF_ERROR_BACKEND_FAILED, "its output '" + name + "' has " + std::to_string(rank) + " dimensions");
        output.rank = rank;
        void *data = nullptr;
        ov_.check(ov_.ov_tensor_data(tensor, &data));
        output.data = static_cast<const float *>(data);
        return output;
    }

    const OpenVINO &ov_;
    std::filesystem::path file_;
    std::atomic<bool> fresh_{true}; // it has not run yet
    Owned<CompiledModel> compiled_;
    std::vector<std::string> inputs_;
    std::vector<std::string> outputs_;
    std::mutex mutex_;
    std::vector<Owned<Request>> free_; // requests that wait for a run; as many as ran at the same time
};

dlf_result load_for_one_run(void *user, dlf_bundle *bundle, const char *stage, const std::vector<dlf_tensor> &inputs,
                            void **loaded, char *message, size_t message_size) {
    const char *file = nullptr;
    if (const dlf_result refusal = dlf_bundle_stage(bundle, stage, &file); refusal != DLF_OK)
        return refusal;
    return reported(message, message_size, [&] { *loaded = new LoadedStage(*static_cast<OpenVINO *>(user), file, inputs); });
}

dlf_result load(void *user, dlf_bundle *bundle, const char *stage, void **loaded, char *message, size_t message_size) {
    return load_for_one_run(user, bundle, stage, {}, loaded, message, message_size);
}

dlf_result run(void *, void *loaded, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs, size_t *output_count,
               void **run, char *message, size_t message_size) {
    return reported(message, message_size, [&] {
        auto *stage = static_cast<LoadedStage *>(loaded);
        *run = stage->run(inputs, input_count, outputs).release();
        *output_count = stage->output_count();
    });
}

void release(void *, void *loaded, void *run) { static_cast<LoadedStage *>(loaded)->take_back(static_cast<Run *>(run)); }

void unload(void *, void *loaded) { delete static_cast<LoadedStage *>(loaded); }

} // namespace

std::shared_ptr<const Backend> open_openvino(const char *library, uint32_t threads) {
    if (library == nullptr)
        library = std::getenv("DLF_OPENVINO");
    std::shared_ptr<OpenVINO> openvino;
    try {
        openvino = std::make_shared<OpenVINO>(library_file(library == nullptr ? kLibrary : library, kLibrary), threads);
    } catch (const Failure &failure) {
        if (failure.result == DLF_ERROR_BACKEND_MISSING)
            throw;
        fail(failure.result, "The backend openvino does not start (" + failure.message + ").");
    }
    dlf_backend table = {};
    table.struct_size = sizeof table;
    table.name = kOpenVINO;
    table.device = openvino->device().c_str();
    table.version = openvino->version().c_str();
    table.user = openvino.get();
    table.load = load;
    table.run = run;
    table.release = release;
    table.unload = unload;
    return std::make_shared<const Backend>(table, openvino, load_for_one_run);
}

} // namespace dlf
