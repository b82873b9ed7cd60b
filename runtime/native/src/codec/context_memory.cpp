#include "codec/context_memory.h"

#include <new>

#include "support/failure.h"

namespace dlf {

Memory::Memory(const dlf_allocator *allocator, uint64_t limit) : limit_(limit == 0 ? UINT64_MAX : limit) {
    if (allocator != nullptr)
        allocator_ = *allocator;
}

void *Memory::do_allocate(size_t size, size_t alignment) {
    if (size > limit_ - held_)
        fail(DLF_ERROR_OUT_OF_MEMORY, "this image takes more memory than the limit of " + std::to_string(limit_) +
                                          " bytes; raise max_memory, or cut the image up");
    void *memory = allocator_ ? allocator_->allocate(allocator_->user, size, alignment)
                              : std::pmr::new_delete_resource()->allocate(size, alignment);
    if (memory == nullptr)
        throw std::bad_alloc();
    held_ += size;
    return memory;
}

void Memory::do_deallocate(void *memory, size_t size, size_t alignment) {
    if (allocator_)
        allocator_->release(allocator_->user, memory, size);
    else
        std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
    held_ -= size;
}

} // namespace dlf
