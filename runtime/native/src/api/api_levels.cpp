#include "api/levels_api.h"

#include <memory>
#include <new>

#include "api/api_guard.h"
#include "codec/generator_levels.h"
#include "support/machine_memory.h"
#include "support/processors.h"

struct dlf_levels {
    std::unique_ptr<const dlf::GeneratorLevels> levels;
};

const char *dlf_levels_isa(void) noexcept { return dlf::levels_isa(); }

dlf_result dlf_levels_open(dlf_bundle *bundle, uint32_t threads, dlf_levels **out) noexcept {
    if (bundle == nullptr)
        return DLF_ERROR_INVALID_ARGUMENT;
    return dlf::guarded(
        [&] {
            dlf::check(bundle->bundle != nullptr && out != nullptr);
            auto levels = dlf::GeneratorLevels::open(*bundle->bundle, threads);
            *out = levels == nullptr ? nullptr : new dlf_levels{std::move(levels)};
        },
        &bundle->message);
}

void dlf_levels_free(dlf_levels *levels) noexcept { delete levels; }

const char *dlf_levels_stage(const dlf_levels *levels) noexcept { return levels->levels->stage().c_str(); }

uint32_t dlf_levels_channels(const dlf_levels *levels) noexcept { return static_cast<uint32_t>(levels->levels->channels()); }

dlf_result dlf_levels_run(const dlf_levels *levels, const float *base, size_t height, size_t width, float *image) noexcept {
    return dlf::guarded([&] { levels->levels->run(base, height, width, image); });
}

uint32_t dlf_usable_processors(const char *root) noexcept {
    size_t count = 1;
    dlf::guarded([&] { count = dlf::usable_processors(root); });
    return static_cast<uint32_t>(count);
}

uint64_t dlf_usable_memory(const char *root) noexcept {
    uint64_t bytes = UINT64_MAX;
    dlf::guarded([&] { bytes = dlf::usable_memory(root); });
    return bytes;
}
