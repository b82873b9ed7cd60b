// Stands in for libFuzzer: feeds the files named on the command line to the target, one after the other.
#include "target.h"

int main(int count, char **arguments) {
    for (int i = 1; i < count; ++i) {
        const std::vector<uint8_t> data = read_file(arguments[i]);
        LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    std::printf("%d files\n", count - 1);
}
