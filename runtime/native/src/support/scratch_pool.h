// Memory that calls on one model reuse, so that coding images of one size allocates only once.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

namespace dlf {

template <class Scratch> class ScratchPool {
public:
    // Calls use(scratch). There are as many scratches as calls that run at the same time.
    template <class Use> void with(Use use) {
        std::unique_ptr<Scratch> scratch = take();
        use(*scratch); // if it throws, the scratch is deleted: an allocation may have left it incomplete
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.push_back(std::move(scratch));
    }

private:
    std::unique_ptr<Scratch> take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (free_.empty())
            return std::make_unique<Scratch>();
        std::unique_ptr<Scratch> scratch = std::move(free_.back());
        free_.pop_back();
        return scratch;
    }

    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> free_;
};

} // namespace dlf
