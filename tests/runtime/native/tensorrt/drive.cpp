// Encodes and decodes an image twice in each of some threads, through dlf.h:
//     drive BUNDLE LIBRARY IMAGE WIDTH HEIGHT THREADS OUT
// Thread 0 writes OUT.dlf and OUT.rgb; the others must come to the same. A refusal is printed as its number and message.
#include <dlf.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "fake_cuda.h"

namespace {

using Bytes = std::vector<uint8_t>;

struct Result {
    dlf_result code = DLF_OK;
    std::string message;
    Bytes file, pixels;
};

void transcode(const dlf_model *model, dlf_image image, Result &result) {
    dlf_context *context = nullptr;
    result.code = dlf_context_create(model, nullptr, &context);
    for (int time = 0; time < 2 && result.code == DLF_OK; ++time) {
        uint8_t *data = nullptr;
        size_t size = 0;
        dlf_image decoded = {sizeof decoded, 0, 0, 0, 0, nullptr};
        result.code = dlf_encode(context, &image, nullptr, &data, &size);
        if (result.code == DLF_OK)
            result.code = dlf_decode(context, data, size, &decoded);
        if (result.code == DLF_OK) {
            result.file.assign(data, data + size);
            result.pixels.assign(decoded.pixels, decoded.pixels + decoded.stride * decoded.height);
        }
        result.message = dlf_context_message(context);
        dlf_free(data);
        dlf_free(decoded.pixels);
    }
    dlf_context_free(context);
}

int refuse(dlf_result code, const std::string &message) {
    std::printf("%d %s\nleft: %d\n", code, message.c_str(), fake_cuda_live());
    return EXIT_FAILURE;
}

void write(const std::string &path, const Bytes &bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 8)
        return 2;
    std::ifstream source(argv[3], std::ios::binary);
    Bytes pixels((std::istreambuf_iterator<char>(source)), std::istreambuf_iterator<char>());
    const dlf_image image = {
        sizeof image, static_cast<uint32_t>(std::atoi(argv[4])), static_cast<uint32_t>(std::atoi(argv[5])), DLF_PIXELS_RGB8, 0,
        pixels.data()};
    dlf_model_options options = {};
    options.struct_size = sizeof options;
    options.tensorrt = argv[2];
    dlf_model *model = nullptr;
    const dlf_result opened = dlf_model_open(argv[1], &options, &model);
    const std::string message = dlf_model_message(model);
    std::vector<Result> results(static_cast<size_t>(std::atoi(argv[6])));
    std::string description;
    if (opened == DLF_OK) {
        dlf_model_info info = {};
        info.struct_size = sizeof info;
        if (dlf_model_get_info(model, &info) == DLF_OK)
            description = std::string(info.backend) + ", " + info.backend_device + ", " + info.backend_version;
        std::vector<std::thread> threads;
        for (Result &result : results)
            threads.emplace_back([&] { transcode(model, image, result); });
        for (std::thread &thread : threads)
            thread.join();
    }
    dlf_model_free(model);
    if (opened != DLF_OK)
        return refuse(opened, message);
    for (const Result &result : results) {
        if (result.code != DLF_OK)
            return refuse(result.code, result.message);
        if (result.file != results[0].file || result.pixels != results[0].pixels)
            return refuse(DLF_OK, "the threads differ");
    }
    write(std::string(argv[7]) + ".dlf", results[0].file);
    write(std::string(argv[7]) + ".rgb", results[0].pixels);
    std::printf("%s\nleft: %d\n", description.c_str(), fake_cuda_live());
}
