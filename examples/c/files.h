/* The examples' functions for files. Errors are printed on stderr. */
#ifndef FILES_H
#define FILES_H

#include <dlf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline int has_suffix(const char *name, const char *suffix) {
    const size_t length = strlen(name), end = strlen(suffix);
    return length >= end && strcmp(name + length - end, suffix) == 0;
}

/* Returns the whole content of a stream, which the caller frees; NULL on failure. `name` is for messages. */
static inline uint8_t *read_stream(FILE *stream, const char *name, size_t *size) {
    size_t capacity = 4096;
    uint8_t *data = (uint8_t *)malloc(capacity);
    *size = 0;
    while (data != NULL) {
        *size += fread(data + *size, 1, capacity - *size, stream);
        if (*size < capacity)
            break;
        uint8_t *larger = (uint8_t *)realloc(data, capacity *= 2);
        if (larger == NULL)
            free(data);
        data = larger;
    }
    if (data == NULL || ferror(stream)) {
        fprintf(stderr, "%s: %s\n", name, data == NULL ? "not enough memory" : strerror(errno));
        free(data);
        return NULL;
    }
    return data;
}

static inline uint8_t *read_file(const char *name, size_t *size) {
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", name, strerror(errno));
        return NULL;
    }
    uint8_t *data = read_stream(file, name, size);
    fclose(file);
    return data;
}

/* Closes a file that was written. Returns 1, or 0 on failure, and then deletes the file. */
static inline int finish_file(FILE *file, const char *name, int written) {
    if (file != NULL)
        written = fclose(file) == 0 && written;
    if (!written) {
        fprintf(stderr, "%s: %s\n", name, strerror(errno));
        if (file != NULL)
            remove(name);
    }
    return written;
}

static inline int write_file(const char *name, const void *data, size_t size) {
    FILE *file = fopen(name, "wb");
    return finish_file(file, name, file != NULL && fwrite(data, 1, size, file) == size);
}

/* Writes an RGB image, whose rows have no gaps between them, as binary PPM. Returns 1, or 0 on failure. */
static inline int write_ppm(FILE *stream, const dlf_image *image) {
    const size_t pixels = (size_t)image->width * image->height;
    return fprintf(stream, "P6\n%u %u\n255\n", image->width, image->height) > 0 &&
           fwrite(image->pixels, 3, pixels, stream) == pixels && fflush(stream) == 0;
}

#endif
