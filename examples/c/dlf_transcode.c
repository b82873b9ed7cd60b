/* PNG to .dlf, and back:
 *
 *     dlf_transcode BUNDLE photo.png photo.dlf
 *     dlf_transcode BUNDLE photo.dlf photo.png
 *
 *     cc dlf_transcode.c $(python -m dlf.config --cflags --libs) $(pkg-config --cflags --libs libpng) -o dlf_transcode
 */
#include <dlf.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

static int encode(dlf_context *context, const char *png, const char *dlf) {
    const png_color white = {255, 255, 255}; /* behind transparent pixels */
    png_image file = {0};
    file.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&file, png)) {
        fprintf(stderr, "%s: %s\n", png, file.message);
        return 0;
    }
    file.format = PNG_FORMAT_RGB;
    dlf_image image = {sizeof image, file.width, file.height, DLF_PIXELS_RGB8, (size_t)file.width * 3, NULL};
    image.pixels = (uint8_t *)malloc(image.stride * image.height);
    if (image.pixels == NULL || !png_image_finish_read(&file, &white, image.pixels, 0, NULL)) {
        fprintf(stderr, "%s: %s\n", png, image.pixels == NULL ? "not enough memory" : file.message);
        png_image_free(&file);
        free(image.pixels);
        return 0;
    }

    uint8_t *data = NULL;
    size_t size = 0;
    int done = dlf_encode(context, &image, NULL, &data, &size) == DLF_OK;
    if (!done)
        fprintf(stderr, "%s: %s\n", png, dlf_context_message(context));
    else
        done = write_file(dlf, data, size);
    dlf_free(data);
    free(image.pixels);
    return done;
}

static int decode(dlf_context *context, const char *dlf, const char *png) {
    size_t size = 0;
    uint8_t *data = read_file(dlf, &size);
    if (data == NULL)
        return 0;
    dlf_image image = {sizeof image};
    int done = dlf_decode(context, data, size, &image) == DLF_OK;
    free(data);
    if (!done) {
        fprintf(stderr, "%s: %s\n", dlf, dlf_context_message(context));
        return 0;
    }
    png_image file = {0};
    file.version = PNG_IMAGE_VERSION;
    file.width = image.width;
    file.height = image.height;
    file.format = PNG_FORMAT_RGB;
    done = png_image_write_to_file(&file, png, 0, image.pixels, 0, NULL);
    if (!done)
        fprintf(stderr, "%s: %s\n", png, file.message);
    dlf_free(image.pixels);
    return done;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: dlf_transcode BUNDLE photo.png photo.dlf\n       dlf_transcode BUNDLE photo.dlf photo.png\n", stderr);
        return 2;
    }
    dlf_model *model = NULL;
    dlf_context *context = NULL;
    int done = 0;
    if (dlf_model_open(argv[1], NULL, &model) != DLF_OK)
        fprintf(stderr, "%s\n", dlf_model_message(model));
    else if (dlf_context_create(model, NULL, &context) != DLF_OK)
        fputs("not enough memory\n", stderr);
    else
        done = has_suffix(argv[3], ".dlf") ? encode(context, argv[2], argv[3]) : decode(context, argv[2], argv[3]);
    dlf_context_free(context);
    dlf_model_free(model);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
