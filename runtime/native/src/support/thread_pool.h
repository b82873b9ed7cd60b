// Threads that share loops: started once for many loops.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dlf {

class ThreadPool {
public:
    // Starts `threads` less one, the caller being the other; fewer where the system does not give as many.
    explicit ThreadPool(size_t threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool &) = delete;
    ThreadPool &operator=(const ThreadPool &) = delete;

    // How many work on a loop.
    size_t size() const { return workers_.size() + 1; }

    // Calls job(index, thread) for all indexes below `count`, thread being below size(). The job must not throw.
    void run(size_t count, const std::function<void(size_t, size_t)> &job);

private:
    void work(const std::function<void(size_t, size_t)> &job, size_t count, size_t thread);
    void wait_for_loops(size_t thread);

    std::mutex mutex_; // of all but next_, which counts without it
    std::condition_variable started_, finished_;
    const std::function<void(size_t, size_t)> *job_ = nullptr; // NULL between loops
    size_t count_ = 0, loops_ = 0, busy_ = 0;                  // loops that began; workers that work on this one
    bool closing_ = false;
    std::atomic<size_t> next_{0};
    std::vector<std::thread> workers_;
};

} // namespace dlf
