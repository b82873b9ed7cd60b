/* Encodes or decodes a file at a dlf service, over HTTP, with sockets alone:
 *
 *     dlf_http HOST PORT encode|decode INPUT OUTPUT
 *
 * A full service is asked again after the seconds that its Retry-After says, three times at most.
 * cc -o dlf_http dlf_http.c
 */

#define _POSIX_C_SOURCE 200809L /* getaddrinfo, fdopen, strncasecmp */

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    char *data; /* with a 0 behind its end */
    size_t size;
} Bytes;

static int fail(const char *what) {
    fprintf(stderr, "dlf_http: %s\n", what);
    return 1;
}

/* Reads a file to its end; data is NULL if that fails. The caller frees it. */
static Bytes read_all(FILE *file) {
    Bytes bytes = {malloc(1 << 16), 0};
    size_t room = 1 << 16;
    while (bytes.data != NULL) {
        bytes.size += fread(bytes.data + bytes.size, 1, room - bytes.size - 1, file);
        if (bytes.size < room - 1) {
            break;
        }
        char *larger = realloc(bytes.data, room *= 2);
        if (larger == NULL) {
            free(bytes.data);
        }
        bytes.data = larger;
    }
    if (bytes.data != NULL) {
        bytes.data[bytes.size] = 0;
    }
    return bytes;
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return -1;
    }
    int connection = -1;
    for (struct addrinfo *at = found; at != NULL && connection < 0; at = at->ai_next) {
        connection = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
        if (connection >= 0 && connect(connection, at->ai_addr, at->ai_addrlen) != 0) {
            close(connection);
            connection = -1;
        }
    }
    freeaddrinfo(found);
    return connection;
}

/* Posts a body and returns the whole answer, which the caller frees; data is NULL if there is none. */
static Bytes post(const char *host, const char *port, const char *path, Bytes body) {
    Bytes none = {NULL, 0};
    int connection = connect_to(host, port);
    FILE *stream = connection < 0 ? NULL : fdopen(connection, "r+");
    if (stream == NULL) {
        return none;
    }
    fprintf(stream, "POST /%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", path, host, body.size);
    fwrite(body.data, 1, body.size, stream);
    Bytes answer = none;
    if (fflush(stream) == 0) {
        answer = read_all(stream);
    }
    fclose(stream);
    return answer;
}

/* The value of a header, or NULL. Names have any case; `end` is the end of the headers. */
static const char *header(const char *answer, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(answer, "\r\n"); line != NULL && line < end; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':') {
            return line + 3 + length;
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 6 || (strcmp(argv[3], "encode") != 0 && strcmp(argv[3], "decode") != 0)) {
        return fail("usage: dlf_http HOST PORT encode|decode INPUT OUTPUT");
    }
    FILE *input = fopen(argv[4], "rb");
    if (input == NULL) {
        return fail("the input cannot be opened");
    }
    Bytes body = read_all(input);
    fclose(input);
    if (body.data == NULL) {
        return fail("out of memory");
    }
    Bytes answer = {NULL, 0};
    int status = 0;
    const char *content = NULL;
    for (int attempt = 0; attempt < 4 && (attempt == 0 || status == 503); attempt++) {
        free(answer.data);
        answer = post(argv[1], argv[2], argv[3], body);
        content = answer.data == NULL ? NULL : strstr(answer.data, "\r\n\r\n");
        if (content == NULL || strncmp(answer.data, "HTTP/1.1 ", 9) != 0) {
            return fail("the service does not answer");
        }
        status = (int)strtol(answer.data + 9, NULL, 10);
        const char *seconds = header(answer.data, content, "retry-after");
        if (status == 503 && attempt < 3) {
            sleep(seconds == NULL ? 1 : (unsigned)strtoul(seconds, NULL, 10));
        }
    }
    content += 4;
    size_t size = answer.size - (size_t)(content - answer.data);
    const char *length = header(answer.data, content, "content-length");
    if (length == NULL || strtoull(length, NULL, 10) != size) {
        return fail("the answer is cut off");
    }
    if (status != 200) {
        fprintf(stderr, "dlf_http: %d %s\n", status, content); /* JSON: the class of the error, and its message */
        return 1;
    }
    FILE *output = fopen(argv[5], "wb");
    if (output == NULL || fwrite(content, 1, size, output) != size || fclose(output) != 0) {
        return fail("the output cannot be written");
    }
    free(answer.data);
    free(body.data);
    return 0;
}
