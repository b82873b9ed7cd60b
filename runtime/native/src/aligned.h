// Vectors whose first element begins a cache line, so that no vector load from a multiple of its size crosses one.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace dlf {

template <class T> struct CacheLineAllocator {
    using value_type = T;
    static constexpr std::align_val_t kLine{64};

    CacheLineAllocator() = default;
    template <class U> CacheLineAllocator(const CacheLineAllocator<U> &) {}
    T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), kLine)); }
    void deallocate(T *values, size_t) { ::operator delete(values, kLine); }
    template <class U> bool operator==(const CacheLineAllocator<U> &) const { return true; }
    template <class U> bool operator!=(const CacheLineAllocator<U> &) const { return false; }
};

template <class T> using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

} // namespace dlf
