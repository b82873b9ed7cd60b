/* Prints the version of libdlf; fails if it is not that of the header. */
#include <dlf.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    printf("libdlf %s\n", dlf_version());
    return strcmp(dlf_version(), DLF_VERSION) != 0;
}
