/* A decoder in a pipe, which passes its own buffer to libdlf. It needs only libdlf:
 *
 *     dlf_to_ppm BUNDLE < photo.dlf | pnmtojpeg > photo.jpg
 *
 *     cc dlf_to_ppm.c $(python -m dlf.config --cflags --libs) -o dlf_to_ppm
 */
#include <dlf.h>
#include <stdio.h>
#include <stdlib.h>

#include "files.h"

static int decode(dlf_context *context, const uint8_t *data, size_t size, const dlf_file_info *info) {
    const size_t capacity = (size_t)3 * info->width * info->height;
    dlf_image image = {sizeof image};
    image.format = DLF_PIXELS_RGB8;
    image.pixels = (uint8_t *)malloc(capacity);
    int done = 0;
    if (image.pixels == NULL) {
        fputs("not enough memory\n", stderr);
    } else if (dlf_decode_into(context, data, size, &image, capacity) != DLF_OK) {
        fprintf(stderr, "%s\n", dlf_context_message(context));
    } else {
        done = write_ppm(stdout, &image);
    }
    free(image.pixels);
    return done;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: dlf_to_ppm BUNDLE < photo.dlf > photo.ppm\n", stderr);
        return 2;
    }
    size_t size = 0;
    uint8_t *data = read_stream(stdin, "standard input", &size);
    if (data == NULL)
        return EXIT_FAILURE;

    dlf_file_info info = {sizeof info};
    char message[256];
    const dlf_result parsed = dlf_file_parse(data, size, NULL, &info, message, sizeof message); /* without a model yet */
    dlf_model_options options = {sizeof options};
    options.file = &info; /* BUNDLE may be a folder of several models */
    dlf_model *model = NULL;
    dlf_context *context = NULL;
    int done = 0;
    if (parsed != DLF_OK)
        fprintf(stderr, "%s\n", message);
    else if (dlf_model_open(argv[1], &options, &model) != DLF_OK)
        fprintf(stderr, "%s\n", dlf_model_message(model));
    else if (dlf_context_create(model, NULL, &context) != DLF_OK)
        fputs("not enough memory\n", stderr);
    else
        done = decode(context, data, size, &info);
    dlf_context_free(context);
    dlf_model_free(model);
    free(data);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
