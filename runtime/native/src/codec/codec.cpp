#include "codec/codec.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "codec/payload.h"
#include "codec/pixels.h"
#include "entropy/vq.h"
#include "support/failure.h"
#include "support/log.h"

namespace dlf {
namespace {

dlf_tensor tensor(const char *name, const float *data, std::initializer_list<size_t> shape) {
    dlf_tensor result = {};
    result.name = name;
    result.data = data;
    result.rank = shape.size();
    std::copy(shape.begin(), shape.end(), result.shape);
    return result;
}

size_t element_count(const dlf_tensor &tensor) {
    return std::accumulate(tensor.shape, tensor.shape + tensor.rank, size_t{1}, std::multiplies<>());
}

template <class Sizes> std::string to_text(const Sizes &shape) {
    std::string text;
    for (const size_t side : shape)
        text += (text.empty() ? "" : ", ") + std::to_string(side);
    return "(" + text + ")";
}

std::string to_text(uint32_t width, uint32_t height) { return std::to_string(width) + "x" + std::to_string(height); }

std::string stream_refusal(dlf_result result) {
    switch (result) {
    case DLF_ERROR_TRUNCATED: return "the stream ends before its last symbol; it is incomplete";
    case DLF_ERROR_TRAILING_BYTES: return "the stream goes on after its last symbol; it is damaged or of another model";
    case DLF_ERROR_STREAM_CORRUPT: return "the stream does not end as an encoder ends it; it is damaged or of another model";
    default: return "";
    }
}

} // namespace

Codec::Codec(std::shared_ptr<Model> model, const dlf_limits &limits, Extent decoded, const dlf_allocator *allocator,
             uint64_t max_memory, uint64_t memory_limit)
    : model_(std::move(model)), limits_(limits), decoded_(decoded), memory_limit_(memory_limit), memory_(allocator, max_memory) {}

void Codec::prepare(bool encoder, bool decoder) {
    const bool keep = model_->keeps_after(1);
    if (encoder)
        model_->stage(kEncoderStage, keep);
    if (decoder)
        for (const char *stage : kDecoderStages)
            model_->stage(stage, keep);
}

const std::pmr::vector<uint8_t> &Codec::encode(const dlf_image &image, bool checksum) {
    const size_t channels = image.format == DLF_PIXELS_GRAY8 ? 1 : 3;
    const size_t row = channels * image.width, stride = image.stride == 0 ? row : image.stride;
    if (image.width == 0 || image.height == 0)
        fail(DLF_ERROR_IMAGE, "the image has no pixels (" + to_text(image.width, image.height) + ")");
    if (image.format != DLF_PIXELS_RGB8 && image.format != DLF_PIXELS_GRAY8)
        fail(DLF_ERROR_IMAGE, "the image has the format " + std::to_string(image.format) + "; give RGB8 or GRAY8");
    if (stride < row)
        fail(DLF_ERROR_IMAGE,
             "a row of the image takes " + std::to_string(row) + " bytes, and its stride is " + std::to_string(stride));
    check_size(image.width, image.height, limits_);
    if (std::max(image.width, image.height) > kMaxSide)
        fail(DLF_ERROR_SIZE_LIMIT, "no .dlf file holds an image of " + to_text(image.width, image.height) + " pixels");

    const bool keep = keeps_stages(Direction::kEncode, image.width, image.height);
    const EntropyModel &entropy = model_->entropy();
    const size_t down = tiles_along(image.height), across = tiles_along(image.width);
    {
        const StepTimer timer("image");
        pad_to_tiles(image.pixels, stride, channels, image.height, image.width, buffers_.batch);
    }
    const dlf_tensor batch = tensor("image", buffers_.batch.data(), {1, 3, kTileSide * down, kTileSide * across});
    const Outputs latents = run(kEncoderStage, {batch}, down, across, keep);
    const float *z = checked(kEncoderStage, latents, "z", {1, down, across, entropy.codebook_dim, kTokensPerTile});
    const float *y = checked(kEncoderStage, latents, "y", {1, entropy.channels, kDetailPerTile * down, kDetailPerTile * across});
    {
        const StepTimer timer("vq");
        buffers_.tokens.resize(down * across * kTokensPerTile);
        vq_lookup(entropy, z, down * across, buffers_.tokens.data());
    }
    const StepTimer timer("detail");
    const std::pmr::vector<uint8_t> &stream = buffers_.detail.stream;
    const size_t detail_size =
        encode_detail(entropy, y, kDetailPerTile * down, kDetailPerTile * across, nullptr, buffers_.detail);
    dlf_file_info info = {};
    info.width = image.width;
    info.height = image.height;
    info.fingerprint = model_->bundle().fingerprint();
    info.has_checksum = checksum ? 1 : 0;
    write_file(entropy, info, buffers_.tokens.data(), stream.data() + (stream.size() - detail_size), detail_size, buffers_.stream,
               buffers_.file);
    return buffers_.file;
}

dlf_file_info Codec::parse(const void *data, size_t size) const {
    dlf_file_info info = {};
    parse_file(static_cast<const uint8_t *>(data), size, limits_, decoded_, info);
    return info;
}

void Codec::decode(const dlf_file_info &info, const void *data, uint8_t *pixels, size_t stride) {
    check_model(info);
    const bool keep = keeps_stages(Direction::kDecode, info.width, info.height);
    const size_t down = tiles_along(info.height), across = tiles_along(info.width);
    Outputs outputs;
    outputs.tensors = latents(info, static_cast<const uint8_t *>(data));
    for (const char *stage : kDecoderStages)
        outputs = run(stage, outputs.tensors, down, across, keep);
    const float *picture = checked(kDecoderStages.back(), outputs, "image", {1, 3, kTileSide * down, kTileSide * across});
    const StepTimer timer("image");
    crop_to_pixels(picture, info.height, info.width, pixels, stride);
}

void Codec::release_memory() { buffers_ = Buffers(&memory_); }

// Whether the stages stay loaded after an image; refuses one that would take too much memory even if they do not.
bool Codec::keeps_stages(Direction direction, uint32_t width, uint32_t height) const {
    const bool release = check_memory(model_->bundle().memory(), model_->backend().name(), direction, width, height, 1,
                                      memory_limit_, !model_->keeps_after(1));
    return !release && model_->keeps_after(tiles_along(width) * tiles_along(height));
}

void Codec::check_model(const dlf_file_info &info) const {
    const EntropyModel &entropy = model_->entropy();
    const uint32_t fingerprint = model_->bundle().fingerprint();
    if (info.fingerprint != fingerprint || info.token_bits != entropy.token_bits ||
        (info.coded_tokens != 0) != entropy.coded_tokens())
        fail(DLF_ERROR_WRONG_MODEL, "it was written with model " + fingerprint_text(info.fingerprint) + " (" +
                                        std::to_string(info.token_bits) + " bits a token), and the bundle " +
                                        model_->bundle().folder().string() + " holds model " + fingerprint_text(fingerprint) +
                                        " (" + std::to_string(entropy.token_bits) +
                                        " bits a token); decode it with the bundle that wrote it");
}

// The inputs of the stage "synthesis".
std::vector<dlf_tensor> Codec::latents(const dlf_file_info &info, const uint8_t *data) {
    const EntropyModel &entropy = model_->entropy();
    const size_t down = tiles_along(info.height), across = tiles_along(info.width);
    std::optional<RansDecoder> detail;
    try {
        const StepTimer timer("tokens");
        buffers_.tokens.resize(info.tiles * kTokensPerTile);
        detail = read_tokens(entropy, info, data, decoded_, buffers_.tokens.data());
    } catch (const Failure &failure) {
        fail(failure.result, stream_refusal(failure.result));
    }
    try {
        const StepTimer timer("vq");
        buffers_.z_hat.resize(info.tiles * entropy.codebook_dim * kTokensPerTile);
        vq_embed(entropy, buffers_.tokens.data(), info.tiles, buffers_.z_hat.data());
    } catch (const Failure &failure) {
        if (failure.result != DLF_ERROR_STREAM_CORRUPT)
            throw;
        fail(failure.result,
             "a token is outside the codebook of " + std::to_string(entropy.codebook_size) + " entries; the file is damaged");
    }
    try {
        const StepTimer timer("detail");
        buffers_.y_hat.resize(entropy.channels * kDetailPerTile * kDetailPerTile * info.tiles);
        if (detail)
            decode_detail(entropy, *detail, kDetailPerTile * down, kDetailPerTile * across, buffers_.y_hat.data(),
                          buffers_.detail);
        else
            std::fill(buffers_.y_hat.begin(), buffers_.y_hat.end(), 0.0f);
    } catch (const Failure &failure) {
        if (!failure.message.empty())
            throw;
        fail(failure.result, stream_refusal(failure.result));
    }
    return {tensor("z_hat", buffers_.z_hat.data(), {1, down, across, entropy.codebook_dim, kTokensPerTile}),
            tensor("y_hat", buffers_.y_hat.data(), {1, entropy.channels, kDetailPerTile * down, kDetailPerTile * across})};
}

// Runs a stage for one image of so many tiles.
Codec::Outputs Codec::run(const char *stage, const std::vector<dlf_tensor> &inputs, size_t down, size_t across, bool keep) {
    Model::Loaded loaded = model_->stage(stage, keep, inputs);
    const StepTimer timer(stage);
    Outputs outputs = run(std::move(loaded.stage), inputs, keep);
    if (loaded.levels == nullptr)
        return outputs;
    const GeneratorLevels &levels = *loaded.levels;
    const size_t height = kMapPerTile * down, width = kMapPerTile * across;
    const float *base = checked(levels.stage().c_str(), outputs, "base", {1, levels.channels(), height, width});
    Outputs finished;
    finished.copies.emplace_back(3 * kTileSide * down * kTileSide * across, &memory_);
    levels.run(base, height, width, finished.copies.back().data());
    finished.tensors.push_back(tensor("image", finished.copies.back().data(), {1, 3, kTileSide * down, kTileSide * across}));
    return finished;
}

// The outputs are copies if the stage is not kept.
Codec::Outputs Codec::run(std::shared_ptr<const Stage> stage, const std::vector<dlf_tensor> &inputs, bool keep) {
    Outputs outputs;
    outputs.run = std::make_unique<StageRun>(std::move(stage), inputs);
    outputs.tensors = outputs.run->outputs();
    if (!keep) {
        outputs.names.reserve(outputs.tensors.size()); // so that no name moves
        for (dlf_tensor &tensor : outputs.tensors) {
            outputs.copies.emplace_back(tensor.data, tensor.data + element_count(tensor), &memory_);
            outputs.names.emplace_back(tensor.name);
            tensor.data = outputs.copies.back().data();
            tensor.name = outputs.names.back().c_str();
        }
        outputs.run.reset();
    }
    return outputs;
}

// An output of a stage, if it is what the entropy core and the caller can take.
const float *Codec::checked(const char *stage, const Outputs &outputs, const char *name, Shape shape) const {
    const auto found = std::find_if(outputs.tensors.begin(), outputs.tensors.end(),
                                    [&](const dlf_tensor &output) { return std::string(name) == output.name; });
    const bool there = found != outputs.tensors.end();
    if (!there || !std::equal(shape.begin(), shape.end(), found->shape, found->shape + found->rank)) {
        const std::string given = there ? to_text(std::vector<size_t>(found->shape, found->shape + found->rank)) : "nothing";
        fail(DLF_ERROR_BUNDLE_BROKEN, "Bundle " + model_->bundle().folder().string() + ": stage " + stage + " gives " + given +
                                          " as " + name + ", not " + to_text(shape) + "; export the bundle again.");
    }
    if (!std::all_of(found->data, found->data + element_count(*found), [](float value) { return std::isfinite(value); }))
        fail(DLF_ERROR_BACKEND_FAILED, std::string("Stage ") + stage + " gave values that are not finite as " + name + ", on " +
                                           model_->backend().name() + ".");
    return found->data;
}

} // namespace dlf
