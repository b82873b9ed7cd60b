// The codec: image -> .dlf bytes -> image, with the neural stages of one model, for one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <memory_resource>
#include <string>
#include <vector>

#include "codec/container.h"
#include "codec/context_memory.h"
#include "codec/model.h"
#include "entropy/detail_coder.h"

namespace dlf {

class Codec {
public:
    Codec(std::shared_ptr<Model> model, const dlf_limits &limits, Extent decoded, const dlf_allocator *allocator,
          uint64_t max_memory, uint64_t memory_limit);
    Codec(const Codec &) = delete; // its buffers know where its memory is
    Codec &operator=(const Codec &) = delete;

    // All that follow throw a Failure or std::bad_alloc.

    void prepare(bool encoder, bool decoder);

    // The bytes of a file, which live until the next call.
    const std::pmr::vector<uint8_t> &encode(const dlf_image &image, bool checksum);

    // Reads a file's header and checks what can be checked without the model.
    dlf_file_info parse(const void *data, size_t size) const;

    // Decodes a file that was parsed as `info` into rows of RGB pixels.
    void decode(const dlf_file_info &info, const void *data, uint8_t *pixels, size_t stride);

    // Gives back all memory that is kept for the next image.
    void release_memory();

private:
    using Shape = std::initializer_list<size_t>;

    struct Buffers {
        explicit Buffers(std::pmr::memory_resource *memory)
            : batch(memory), z_hat(memory), y_hat(memory), tokens(memory), file(memory), stream(memory), detail(memory) {}

        AlignedVector<float> batch, z_hat, y_hat;
        std::pmr::vector<uint16_t> tokens;
        std::pmr::vector<uint8_t> file, stream;
        DetailScratch detail;
    };

    // What a stage gave: the run that owns it, or copies where the stage must not stay or libdlf computed it.
    struct Outputs {
        std::unique_ptr<StageRun> run;
        std::vector<AlignedVector<float>> copies;
        std::vector<std::string> names;
        std::vector<dlf_tensor> tensors;
    };

    Outputs run(const char *stage, const std::vector<dlf_tensor> &inputs, size_t down, size_t across, bool keep);
    Outputs run(std::shared_ptr<const Stage> stage, const std::vector<dlf_tensor> &inputs, bool keep);
    const float *checked(const char *stage, const Outputs &outputs, const char *name, Shape shape) const;
    bool keeps_stages(Direction direction, uint32_t width, uint32_t height) const;
    void check_model(const dlf_file_info &info) const;
    std::vector<dlf_tensor> latents(const dlf_file_info &info, const uint8_t *data);

    std::shared_ptr<Model> model_;
    dlf_limits limits_;
    Extent decoded_; // of the files that are decoded
    uint64_t memory_limit_;
    Memory memory_;
    Buffers buffers_{&memory_};
};

} // namespace dlf
