// The C border of models and contexts.
#include "dlf.h"

#include <algorithm>
#include <memory>
#include <string>

#include "api/api_guard.h"
#include "codec/codec.h"
#include "codec/container.h"
#include "codec/model.h"
#include "codec/payload.h"
#include "support/log.h"

struct dlf_model {
    std::shared_ptr<dlf::Model> model{}; // NULL where it did not open; contexts share it
    std::string message{};
};

struct dlf_context {
    dlf::Codec codec;
    std::string message{};
};

namespace {

using dlf::check;
using dlf::check_struct;
using dlf::guarded;

using Pixels = std::unique_ptr<uint8_t, decltype(&dlf_free)>;

// Runs a call of a context, which keeps its message, and no memory where there was too little.
template <class Body> dlf_result guarded_call(dlf_context *context, Body body) noexcept {
    if (context == nullptr)
        return DLF_ERROR_INVALID_ARGUMENT;
    const dlf_result result = guarded(body, &context->message);
    if (result == DLF_ERROR_OUT_OF_MEMORY)
        context->codec.release_memory();
    return result;
}

void check_backend(const dlf_backend *backend) {
    if (backend == nullptr)
        return;
    check_struct(backend);
    check(backend->name != nullptr && backend->load != nullptr && backend->run != nullptr && backend->release != nullptr &&
          backend->unload != nullptr);
}

void check_allocator(const dlf_allocator *allocator) {
    check_struct(allocator);
    check(allocator == nullptr || (allocator->allocate != nullptr && allocator->release != nullptr));
}

const std::pmr::vector<uint8_t> &encode(dlf_context *context, const dlf_image *image, const dlf_encode_options *options) {
    check(image != nullptr);
    check_struct(image);
    check_struct(options);
    check(image->pixels != nullptr || image->width == 0 || image->height == 0);
    return context->codec.encode(*image, options == nullptr || options->no_checksum == 0);
}

} // namespace

void dlf_set_log(dlf_log_function function, void *user) noexcept { dlf::set_log(function, user); }

dlf_result dlf_model_open(const char *folder, const dlf_model_options *options, dlf_model **out) noexcept {
    return dlf::open_object(out, [&](dlf_model &model) {
        check(folder != nullptr);
        check_struct(options);
        const dlf_model_options chosen = options == nullptr ? dlf_model_options{} : *options;
        check_backend(chosen.backend);
        check_struct(chosen.file);
        model.model = std::make_shared<dlf::Model>(folder, chosen);
    });
}

void dlf_model_free(dlf_model *model) noexcept { delete model; }

const char *dlf_model_message(const dlf_model *model) noexcept { return dlf::message_of(model); }

dlf_result dlf_model_get_info(const dlf_model *model, dlf_model_info *info) noexcept {
    return guarded([&] {
        check(model != nullptr && model->model != nullptr && info != nullptr);
        dlf_model_info full = {};
        full.name = model->model->bundle().name().c_str();
        full.fingerprint = model->model->bundle().fingerprint();
        full.precision = model->model->bundle().precision().c_str();
        full.backend = model->model->backend().name().c_str();
        full.backend_device = model->model->backend().device().c_str();
        full.backend_version = model->model->backend().version().c_str();
        dlf::fill(info, full);
    });
}

const dlf_entropy *dlf_model_entropy(const dlf_model *model) noexcept {
    return model == nullptr || model->model == nullptr ? nullptr : &model->model->bundle().entropy();
}

dlf_result dlf_context_create(const dlf_model *model, const dlf_context_options *options, dlf_context **out) noexcept {
    return guarded([&] {
        check(model != nullptr && model->model != nullptr && out != nullptr);
        check_struct(options);
        const dlf_context_options chosen = options == nullptr ? dlf_context_options{} : *options;
        check_struct(chosen.limits);
        check_allocator(chosen.allocator);
        const dlf_limits &limits = chosen.limits == nullptr ? dlf::kDefaultLimits : *chosen.limits;
        check(chosen.preview <= 1);
        const dlf::Extent decoded = chosen.preview ? dlf::Extent::preview : dlf::Extent::whole;
        *out =
            new dlf_context{dlf::Codec(model->model, limits, decoded, chosen.allocator, chosen.max_memory, chosen.memory_limit)};
    });
}

void dlf_context_free(dlf_context *context) noexcept { delete context; }

const char *dlf_context_message(const dlf_context *context) noexcept { return context->message.c_str(); }

dlf_result dlf_context_prepare(dlf_context *context, uint32_t what) noexcept {
    return guarded_call(context, [&] {
        check(what != 0 && (what & ~uint32_t{DLF_PREPARE_ENCODE | DLF_PREPARE_DECODE}) == 0);
        context->codec.prepare((what & DLF_PREPARE_ENCODE) != 0, (what & DLF_PREPARE_DECODE) != 0);
    });
}

dlf_result dlf_encode(dlf_context *context, const dlf_image *image, const dlf_encode_options *options, uint8_t **out,
                      size_t *size) noexcept {
    return guarded_call(context, [&] {
        check(out != nullptr && size != nullptr);
        const auto &file = encode(context, image, options);
        dlf::hand_over(file.data(), file.size(), out, size);
    });
}

dlf_result dlf_encode_into(dlf_context *context, const dlf_image *image, const dlf_encode_options *options, void *out,
                           size_t *size) noexcept {
    return guarded_call(context, [&] {
        check(size != nullptr && (out != nullptr || *size == 0));
        const auto &file = encode(context, image, options);
        const size_t capacity = *size;
        *size = file.size();
        if (file.size() > capacity)
            dlf::fail(DLF_ERROR_BUFFER_TOO_SMALL, "the file has " + std::to_string(file.size()) + " bytes, and the buffer " +
                                                      std::to_string(capacity) +
                                                      "; dlf_encode_bound tells what is always enough");
        std::copy(file.begin(), file.end(), static_cast<uint8_t *>(out));
    });
}

size_t dlf_encode_bound(const dlf_model *model, uint32_t width, uint32_t height) noexcept {
    if (model == nullptr || model->model == nullptr || std::min(width, height) == 0 || std::max(width, height) > dlf::kMaxSide)
        return 0;
    return dlf::file_bound(model->model->entropy(), dlf::tiles_along(height), dlf::tiles_along(width));
}

dlf_result dlf_decode(dlf_context *context, const void *data, size_t size, dlf_image *image) noexcept {
    return guarded_call(context, [&] {
        check((data != nullptr || size == 0) && image != nullptr);
        check_struct(image);
        const dlf_file_info info = context->codec.parse(data, size);
        const size_t stride = 3 * size_t{info.width};
        Pixels pixels(static_cast<uint8_t *>(std::malloc(stride * info.height)), dlf_free);
        if (pixels == nullptr)
            throw std::bad_alloc();
        context->codec.decode(info, data, pixels.get(), stride);
        image->width = info.width;
        image->height = info.height;
        image->format = DLF_PIXELS_RGB8;
        image->stride = stride;
        image->pixels = pixels.release();
    });
}

dlf_result dlf_decode_into(dlf_context *context, const void *data, size_t size, dlf_image *image, size_t capacity) noexcept {
    return guarded_call(context, [&] {
        check((data != nullptr || size == 0) && image != nullptr);
        check_struct(image);
        check(image->pixels != nullptr || capacity == 0);
        const dlf_file_info info = context->codec.parse(data, size);
        const size_t row = 3 * size_t{info.width};
        if (image->format != DLF_PIXELS_RGB8)
            dlf::fail(DLF_ERROR_IMAGE, "images are decoded to RGB8 alone");
        image->width = info.width;
        image->height = info.height;
        if (image->stride == 0)
            image->stride = row;
        if (image->stride < row)
            dlf::fail(DLF_ERROR_IMAGE, "a row of the image takes " + std::to_string(row) + " bytes, and the buffer's stride is " +
                                           std::to_string(image->stride));
        // A stride that overflows the product is one that no buffer has. A parsed file has a width, so that no stride is 0 here.
        // NOLINTNEXTLINE(clang-analyzer-core.DivideZero)
        const bool fits = capacity >= row && (capacity - row) / image->stride >= info.height - 1;
        if (!fits)
            dlf::fail(DLF_ERROR_BUFFER_TOO_SMALL, "the image is " + std::to_string(info.width) + "x" +
                                                      std::to_string(info.height) + " pixels, which the buffer of " +
                                                      std::to_string(capacity) + " bytes does not hold");
        context->codec.decode(info, data, image->pixels, image->stride);
    });
}
