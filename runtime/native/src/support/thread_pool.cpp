#include "support/thread_pool.h"

#include <system_error>

namespace dlf {

ThreadPool::ThreadPool(size_t threads) {
    workers_.reserve(threads);
    try {
        for (size_t thread = 1; thread < threads; ++thread)
            workers_.emplace_back(&ThreadPool::wait_for_loops, this, thread);
    } catch (const std::system_error &) { // the threads that were started do the work
    }
}

ThreadPool::~ThreadPool() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        closing_ = true;
    }
    started_.notify_all();
    for (std::thread &worker : workers_)
        worker.join();
}

void ThreadPool::run(size_t count, const std::function<void(size_t, size_t)> &job) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        job_ = &job;
        count_ = count;
        next_ = 0;
        ++loops_;
    }
    started_.notify_all();
    work(job, count, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr; // threads that have not woken up yet are not waited for
    finished_.wait(lock, [&] { return busy_ == 0; });
}

void ThreadPool::work(const std::function<void(size_t, size_t)> &job, size_t count, size_t thread) {
    for (size_t index; (index = next_.fetch_add(1, std::memory_order_relaxed)) < count;)
        job(index, thread);
}

void ThreadPool::wait_for_loops(size_t thread) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (size_t done = 0;;) {
        started_.wait(lock, [&] { return closing_ || (job_ != nullptr && loops_ != done); });
        if (closing_)
            return;
        done = loops_;
        ++busy_;
        const auto &job = *job_; // which stays until all that are busy are done
        const size_t count = count_;
        lock.unlock();
        work(job, count, thread);
        lock.lock();
        if (--busy_ == 0)
            finished_.notify_one();
    }
}

} // namespace dlf
