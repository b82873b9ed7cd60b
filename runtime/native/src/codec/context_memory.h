// The memory of a context: from the application's allocator or the C++ library's, and never more than its limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <optional>

#include "dlf.h"

namespace dlf {

class Memory final : public std::pmr::memory_resource {
public:
    // allocator: NULL for the C++ library's; copied. limit: bytes, 0 for none.
    Memory(const dlf_allocator *allocator, uint64_t limit);

private:
    void *do_allocate(size_t size, size_t alignment) override; // throws a Failure
    void do_deallocate(void *memory, size_t size, size_t alignment) override;
    bool do_is_equal(const memory_resource &other) const noexcept override { return this == &other; }

    std::optional<dlf_allocator> allocator_;
    uint64_t limit_, held_ = 0;
};

} // namespace dlf
