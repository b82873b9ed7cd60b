// Vectors whose first element begins a cache line, so that no vector load from a multiple of its size crosses one.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <vector>

namespace dlf {

// Allocates from a memory resource, which must outlive the vector.
template <class T> class CacheLineAllocator {
public:
    using value_type = T;

    CacheLineAllocator(std::pmr::memory_resource *memory = std::pmr::new_delete_resource()) : memory_(memory) {}
    template <class U> CacheLineAllocator(const CacheLineAllocator<U> &other) : memory_(other.memory()) {}
    T *allocate(size_t count) { return static_cast<T *>(memory_->allocate(count * sizeof(T), kLine)); }
    void deallocate(T *values, size_t count) { memory_->deallocate(values, count * sizeof(T), kLine); }
    std::pmr::memory_resource *memory() const { return memory_; }
    template <class U> bool operator==(const CacheLineAllocator<U> &other) const { return *memory_ == *other.memory(); }
    template <class U> bool operator!=(const CacheLineAllocator<U> &other) const { return !(*this == other); }

private:
    static constexpr size_t kLine = 64;

    std::pmr::memory_resource *memory_;
};

template <class T> using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

} // namespace dlf
