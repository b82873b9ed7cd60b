// Any bytes as a bundle's manifest.json.
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char message[96];
    std::memset(message, '?', sizeof message);
    const dlf_result result = dlf_manifest_check(data, size, message, sizeof message);
    CHECK(result == DLF_OK || result == DLF_ERROR_BUNDLE_FOREIGN || result == DLF_ERROR_BUNDLE_BROKEN);
    if (result != DLF_OK)
        CHECK(std::memchr(message, 0, sizeof message) != nullptr && message[0] != 0);
    CHECK(dlf_manifest_check(data, size, nullptr, 0) == result);
    return 0;
}
