// The C border of bundles.
#include "dlf.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "api/api_guard.h"
#include "codec/bundle.h"
#include "codec/manifest.h"

namespace {

using dlf::check;
using dlf::guarded;

// Hands over a text that an open bundle gives of a name.
template <class Give> dlf_result give(dlf_bundle *bundle, const char *name, const char **out, Give text_of) noexcept {
    if (bundle == nullptr)
        return DLF_ERROR_INVALID_ARGUMENT;
    return guarded(
        [&] {
            check(bundle->bundle != nullptr && name != nullptr && out != nullptr);
            bundle->text = text_of(*bundle->bundle, name);
            *out = bundle->text.c_str();
        },
        &bundle->message);
}

} // namespace

dlf_result dlf_bundle_open(const char *folder, dlf_bundle **out) noexcept {
    return dlf::open_object(out, [&](dlf_bundle &bundle) {
        check(folder != nullptr);
        bundle.bundle = std::make_unique<dlf::Bundle>(folder);
    });
}

void dlf_bundle_free(dlf_bundle *bundle) noexcept { delete bundle; }

const char *dlf_bundle_message(const dlf_bundle *bundle) noexcept { return dlf::message_of(bundle); }

dlf_result dlf_bundle_get_info(const dlf_bundle *bundle, dlf_bundle_info *info) noexcept {
    return guarded([&] {
        check(bundle != nullptr && bundle->bundle != nullptr && info != nullptr);
        dlf_bundle_info full = {};
        full.name = bundle->bundle->name().c_str();
        full.fingerprint = bundle->bundle->fingerprint();
        full.precision = bundle->bundle->precision().c_str();
        full.manifest = bundle->bundle->manifest_text().c_str();
        dlf::fill(info, full);
    });
}

const dlf_entropy *dlf_bundle_entropy(const dlf_bundle *bundle) noexcept {
    return bundle == nullptr || bundle->bundle == nullptr ? nullptr : &bundle->bundle->entropy();
}

dlf_result dlf_bundle_stage(dlf_bundle *bundle, const char *stage, const char **path) noexcept {
    return give(bundle, stage, path, [](dlf::Bundle &open, const char *name) { return open.stage(name).string(); });
}

dlf_result dlf_bundle_stage_digest(dlf_bundle *bundle, const char *stage, const char **digest) noexcept {
    return give(bundle, stage, digest, [](dlf::Bundle &open, const char *name) { return open.stage_digest(name); });
}

dlf_result dlf_bundle_file(dlf_bundle *bundle, const char *name, const char **path) noexcept {
    return give(bundle, name, path, [](dlf::Bundle &open, const char *file) { return open.file(file).string(); });
}

dlf_result dlf_bundle_check_memory(dlf_bundle *bundle, const char *backend, uint32_t what, uint32_t width, uint32_t height,
                                   uint32_t images, uint64_t limit, uint32_t *release) noexcept {
    if (bundle == nullptr)
        return DLF_ERROR_INVALID_ARGUMENT;
    return guarded(
        [&] {
            check(bundle->bundle != nullptr && backend != nullptr && release != nullptr && *release <= 1 &&
                  (what == DLF_PREPARE_ENCODE || what == DLF_PREPARE_DECODE));
            const auto direction = what == DLF_PREPARE_ENCODE ? dlf::Direction::kEncode : dlf::Direction::kDecode;
            *release =
                dlf::check_memory(bundle->bundle->memory(), backend, direction, width, height, images, limit, *release != 0) ? 1
                                                                                                                             : 0;
        },
        &bundle->message);
}

dlf_result dlf_manifest_check(const void *data, size_t size, char *message, size_t message_size) noexcept {
    std::string reason;
    const dlf_result result = guarded(
        [&] {
            check(data != nullptr || size == 0);
            dlf::parse_manifest({static_cast<const char *>(data), size});
        },
        &reason);
    dlf::hand_over(std::move(reason), message, message_size);
    return result;
}
