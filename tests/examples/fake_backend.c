/* A backend of a few loops, in place of OpenVINO: so that valgrind and the sanitizers see no code but libdlf's and the
 * example's. Linked with --wrap=dlf_model_open, it makes any program use it. Its stages have the shapes of the toy bundle's. */
#include <dlf.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 8, DIM = 4, TOKENS = 32, COLOURS = 3 };

typedef struct {
    float *data[2]; /* of the outputs */
} fake_run;

static void describe(dlf_tensor *output, const char *name, float *data, size_t rank, const size_t *shape) {
    output->name = name;
    output->data = data;
    output->rank = rank;
    memcpy(output->shape, shape, rank * sizeof *shape);
}

static const dlf_tensor *input_named(const dlf_tensor *inputs, size_t count, const char *name) {
    for (size_t i = 0; i < count; ++i)
        if (strcmp(inputs[i].name, name) == 0)
            return &inputs[i];
    return NULL;
}

/* (1, channels, height, width): each value is the one of `from`, of any size, at the same place. */
static float *resized(const dlf_tensor *from, size_t channels, size_t height, size_t width, float gain) {
    float *map = malloc(channels * height * width * sizeof *map);
    const size_t rows = from->shape[2], cols = from->shape[3];
    for (size_t c = 0, at = 0; map != NULL && c < channels; ++c)
        for (size_t row = 0; row < height; ++row)
            for (size_t col = 0; col < width; ++col, ++at)
                map[at] = gain * from->data[(c % from->shape[1] * rows + row * rows / height) * cols + col * cols / width];
    return map;
}

static dlf_result load(void *user, dlf_bundle *bundle, const char *stage, void **loaded, char *message, size_t message_size) {
    (void)user, (void)message, (void)message_size;
    const char *file;
    const dlf_result refusal = dlf_bundle_stage(bundle, stage, &file);
    if (refusal != DLF_OK)
        return refusal;
    *loaded = malloc(strlen(stage) + 1);
    if (*loaded == NULL)
        return DLF_ERROR_OUT_OF_MEMORY;
    strcpy(*loaded, stage);
    return DLF_OK;
}

static dlf_result run(void *user, void *loaded, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs,
                      size_t *output_count, void **token, char *message, size_t message_size) {
    (void)user, (void)message, (void)message_size;
    fake_run *result = calloc(1, sizeof *result);
    if (result == NULL)
        return DLF_ERROR_OUT_OF_MEMORY;
    *token = result;
    if (strcmp(loaded, "analysis") == 0) {
        const dlf_tensor *image = input_named(inputs, input_count, "image");
        const size_t down = image->shape[2] / 256, across = image->shape[3] / 256, values = down * across * DIM * TOKENS;
        result->data[0] = malloc(values * sizeof(float));
        for (size_t i = 0; result->data[0] != NULL && i < values; ++i)
            result->data[0][i] = image->data[i] + (float)(i % 5);
        result->data[1] = resized(image, CHANNELS, 8 * down, 8 * across, 32);
        describe(&outputs[0], "z", result->data[0], 5, (const size_t[]){1, down, across, DIM, TOKENS});
        describe(&outputs[1], "y", result->data[1], 4, (const size_t[]){1, CHANNELS, 8 * down, 8 * across});
        *output_count = 2;
    } else if (strcmp(loaded, "synthesis") == 0) {
        const dlf_tensor *y = input_named(inputs, input_count, "y_hat");
        const size_t rows = 2 * y->shape[2], cols = 2 * y->shape[3];
        result->data[0] = calloc(rows * cols, sizeof(float));
        result->data[1] = resized(y, COLOURS, rows, cols, 1.f / 32);
        describe(&outputs[0], "semantic", result->data[0], 4, (const size_t[]){1, 1, rows, cols});
        describe(&outputs[1], "detail", result->data[1], 4, (const size_t[]){1, COLOURS, rows, cols});
        *output_count = 2;
    } else {
        const int last = strcmp(loaded, "generator") == 0;
        const dlf_tensor *from = input_named(inputs, input_count, last ? "latent" : "detail");
        const size_t scale = last ? 16 : 1, rows = scale * from->shape[2], cols = scale * from->shape[3];
        result->data[0] = resized(from, COLOURS, rows, cols, 1);
        describe(&outputs[0], last ? "image" : "latent", result->data[0], 4, (const size_t[]){1, COLOURS, rows, cols});
        *output_count = 1;
    }
    return DLF_OK;
}

static void release(void *user, void *loaded, void *token) {
    (void)user, (void)loaded;
    fake_run *result = token;
    free(result->data[0]);
    free(result->data[1]);
    free(result);
}

static void unload(void *user, void *loaded) {
    (void)user;
    free(loaded);
}

dlf_result __real_dlf_model_open(const char *folder, const dlf_model_options *options, dlf_model **out);

dlf_result __wrap_dlf_model_open(const char *folder, const dlf_model_options *options, dlf_model **out) {
    (void)options; /* the examples give none */
    const dlf_backend backend = {
        .struct_size = sizeof backend, .name = "fake", .load = load, .run = run, .release = release, .unload = unload};
    const dlf_model_options own = {.struct_size = sizeof own, .backend = &backend};
    return __real_dlf_model_open(folder, &own, out);
}
