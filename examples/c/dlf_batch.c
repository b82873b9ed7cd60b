/* Many files on eight threads: one model for all, a context for each.
 *
 *     dlf_batch BUNDLE a.ppm b.ppm c.dlf      writes a.dlf, b.dlf, c.ppm
 *
 *     cc dlf_batch.c -pthread $(python -m dlf.config --cflags --libs) -o dlf_batch
 */
#include <dlf.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

#define THREADS 8

typedef struct batch {
    const dlf_model *model;
    char **names;
    int count;
    pthread_mutex_t lock; /* of the fields below */
    int next;
    int failed;
} batch;

/* Returns `name` with its suffix replaced by another of four characters; the caller frees it. */
static char *renamed(const char *name, const char *suffix) {
    const size_t length = strlen(name);
    char *other = (char *)malloc(length + 1);
    if (other != NULL)
        strcpy(strcpy(other, name) + length - 4, suffix);
    return other;
}

/* Finds the pixels in a binary PPM file of 8 bits a channel without comments; returns 0 if it is not such a file. */
static int parse_ppm(uint8_t *data, size_t size, dlf_image *image) {
    int header = 0;
    char text[32] = {0};
    memcpy(text, data, size < sizeof text ? size : sizeof text - 1);
    if (sscanf(text, "P6 %7u %7u 255%n", &image->width, &image->height, &header) != 2 || header == 0)
        return 0;
    image->format = DLF_PIXELS_RGB8;
    image->pixels = data + header + 1;
    return size == (size_t)header + 1 + (size_t)3 * image->width * image->height;
}

static int encode(dlf_context *context, const char *ppm, const char *dlf) {
    size_t file_size = 0, size = 0;
    uint8_t *file = read_file(ppm, &file_size), *data = NULL;
    dlf_image image = {sizeof image};
    int done = 0;
    if (file == NULL)
        return 0;
    if (!parse_ppm(file, file_size, &image))
        fprintf(stderr, "%s: not a plain PPM file\n", ppm);
    else if (dlf_encode(context, &image, NULL, &data, &size) != DLF_OK)
        fprintf(stderr, "%s: %s\n", ppm, dlf_context_message(context));
    else
        done = write_file(dlf, data, size);
    dlf_free(data);
    free(file);
    return done;
}

static int decode(dlf_context *context, const char *dlf, const char *ppm) {
    size_t size = 0;
    uint8_t *data = read_file(dlf, &size);
    dlf_image image = {sizeof image};
    int done = 0;
    if (data == NULL)
        return 0;
    if (dlf_decode(context, data, size, &image) != DLF_OK) {
        fprintf(stderr, "%s: %s\n", dlf, dlf_context_message(context));
    } else {
        FILE *file = fopen(ppm, "wb");
        done = finish_file(file, ppm, file != NULL && write_ppm(file, &image));
    }
    dlf_free(image.pixels);
    free(data);
    return done;
}

static int convert(dlf_context *context, const char *name) {
    const int encoding = has_suffix(name, ".ppm");
    if (!encoding && !has_suffix(name, ".dlf")) {
        fprintf(stderr, "%s: neither .ppm nor .dlf\n", name);
        return 0;
    }
    char *other = renamed(name, encoding ? ".dlf" : ".ppm");
    const int done = other != NULL && (encoding ? encode : decode)(context, name, other);
    free(other);
    return done;
}

static void *work(void *argument) {
    batch *all = (batch *)argument;
    dlf_context *context = NULL;
    const dlf_result created = dlf_context_create(all->model, NULL, &context);
    int failed = created != DLF_OK;
    if (failed)
        fprintf(stderr, "%s\n", dlf_result_string(created));
    while (context != NULL) {
        pthread_mutex_lock(&all->lock);
        const char *name = all->next < all->count ? all->names[all->next++] : NULL;
        pthread_mutex_unlock(&all->lock);
        if (name == NULL)
            break;
        failed |= !convert(context, name);
    }
    dlf_context_free(context);
    pthread_mutex_lock(&all->lock);
    all->failed |= failed;
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("usage: dlf_batch BUNDLE (photo.ppm | photo.dlf)...\n", stderr);
        return 2;
    }
    dlf_model *model = NULL;
    if (dlf_model_open(argv[1], NULL, &model) != DLF_OK) {
        fprintf(stderr, "%s\n", dlf_model_message(model));
        dlf_model_free(model);
        return EXIT_FAILURE;
    }
    batch all = {model, argv + 2, argc - 2, PTHREAD_MUTEX_INITIALIZER, 0, 0};
    pthread_t threads[THREADS];
    int started = 0;
    while (started < THREADS && pthread_create(&threads[started], NULL, work, &all) == 0)
        ++started;
    for (int i = 0; i < started; ++i)
        pthread_join(threads[i], NULL);
    dlf_model_free(model);
    if (started == 0)
        fputs("no thread can be started\n", stderr);
    return started == 0 || all.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
