// A launch: a grid of blocks, run by one or more OS threads, each of which makes one block's fibers and runs block
// after block on them. With n OS threads, thread i runs blocks i, i + n, i + 2n ... of the order: what each does is
// fixed, so that a race between two blocks on two threads is always there for ThreadSanitizer to see.
//
// CUDA_EMULATOR_KERNEL(name, launch bounds...), which the build writes below the kernels, makes `name` known to Python.
#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "launch_request.h"
#include "memory.h"
#include "scheduler.h"
#include "warp.h"

namespace cuda_emulator {

// ---------------------------------------------------------------- one OS thread's block

class BlockRunner {
  public:
    BlockRunner(unsigned threads)
        : stacks_(threads), threads_(threads), warps_((threads + 31) / 32), ready_(threads) {
        for (unsigned i = 0; i < threads; i++) {
            Thread& thread = threads_[i];
            thread.number = i, thread.lane = i % 32, thread.warp = &warps_[i / 32], thread.block = &block_;
            thread.fiber.stack = stacks_[i], thread.fiber.stack_bytes = Stacks::bytes;
            thread.fiber.tsan = tsan::create_fiber();
            if (i % 32 == 0) thread.warp->lanes = &thread;
        }
        block_.threads = threads_.data(), block_.warps = warps_.data(), block_.ready = ready_.data();
        block_.count = threads;
        block_.os_thread.block = &block_;
    }
    BlockRunner(const BlockRunner&) = delete;
    ~BlockRunner() {
        for (Thread& thread : threads_) tsan::destroy_fiber(thread.fiber.tsan);
    }

    Block& block() { return block_; }
    unsigned count() const { return block_.count; }

    void shape(dim3 size, dim3 grid) {
        block_.size = size, block_.grid = grid;
        for (unsigned i = 0; i < block_.count; i++)
            threads_[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    }

    // False: it failed, and has said so; this runner cannot be used again.
    CUDA_EMULATOR_UNSEEN bool run(uint3 index, const SharedMemory& shared) {
        Block& block = block_;
        shared.poison();
        block.index = index, block.alive = block.count, block.arrived = 0, block.sum = 0;
        block.head = block.waiting_to_run = 0;
        block.os_thread.fiber.tsan = tsan::current_fiber();
        for (unsigned i = 0; i < block.count; i += 32) {
            const unsigned lanes = block.count - i;
            block.warps[i / 32].alive = lanes < 32 ? (1u << lanes) - 1 : all_lanes;
            block.warps[i / 32].waiting = 0;
        }
        for (unsigned i = 0; i < block.count; i++) {
            block.threads[i].finished = false;
            block.threads[i].waits_in = "", block.threads[i].waits_at = {};
            restart(block.threads[i].fiber, begin);
            make_ready(block.threads[i]);
        }
        tsan::release(&block.starts);
        running = &block.os_thread;
        switch_to(block.os_thread, *next_ready(block));
        tsan::acquire(&block.finishes);
        running = nullptr;
        if (block.failed) {
            asan::allow(stacks_[0], size_t(stacks_[block.count - 1] + Stacks::bytes - stacks_[0]));
            return false;
        }
        if (const size_t beyond = shared.written_beyond()) {
            block.report(block.report_to, "block " + text(index) + " wrote up to " + std::to_string(beyond) +
                                              " bytes behind its dynamic shared memory");
            return false;
        }
        return true;
    }

  private:
    // Every fiber starts here.
    CUDA_EMULATOR_UNSEEN static void begin() {
        Thread& me = *running;
        Block& block = *me.block;
        arrive(me.fiber, block.left->fiber);
        tsan::acquire(&block.starts);
        block.kernel(block.arguments);
        tsan::release(&block.finishes);
        me.finished = true;
        block.alive--;
        if (block.alive && block.arrived == block.alive) open_barrier(block);
        leave_warp(me);
        Thread* next = block.alive ? next_ready(block) : &block.os_thread;
        if (!next) deadlock(block);
        switch_to(me, *next, true);
        __builtin_unreachable();
    }

    Stacks stacks_;
    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::vector<unsigned> ready_;
    Block block_;
};

// Runners are kept for the next launch: to make 1024 stacks costs more than to run most blocks.
class Runners {
  public:
    static std::unique_ptr<BlockRunner> take(unsigned threads) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (auto& runner : idle_) {
                if (runner->count() != threads) continue;
                std::swap(runner, idle_.back());
                auto taken = std::move(idle_.back());
                idle_.pop_back();
                return taken;
            }
        }
        return std::make_unique<BlockRunner>(threads);
    }
    static void give_back(std::unique_ptr<BlockRunner> runner) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.size() == 4) idle_.erase(idle_.begin());
        idle_.push_back(std::move(runner));
    }

  private:
    static inline std::mutex mutex_;
    static inline std::vector<std::unique_ptr<BlockRunner>> idle_;
};

// ---------------------------------------------------------------- the grid

// The order in which blocks run: CUDA promises none. Only a random one has to be written down.
class BlockOrder {
  public:
    const uint64_t count;

    BlockOrder(uint64_t count, Order order, uint64_t seed) : count(count), last_(order == Order::last) {
        if (order != Order::random) return;
        drawn_.resize(count);
        std::iota(drawn_.begin(), drawn_.end(), uint64_t(0));
        Block dice;
        dice.random = seed;
        for (uint64_t i = count; i > 1; i--) std::swap(drawn_[i - 1], drawn_[draw(dice) % i]);
    }
    uint64_t operator[](uint64_t i) const { return !drawn_.empty() ? drawn_[i] : last_ ? count - 1 - i : i; }

  private:
    bool last_;
    std::vector<uint64_t> drawn_;
};

class Grid {
  public:
    Grid(const Launch& launch, void (*kernel)(const void*), const void* arguments)
        : launch_(launch), grid_(launch.grid[0], launch.grid[1], launch.grid[2]),
          size_(launch.block[0], launch.block[1], launch.block[2]), kernel_(kernel), arguments_(arguments),
          blocks_(uint64_t(grid_.x) * grid_.y * grid_.z, Order(launch.order), launch.seed) {}

    bool run() {
        std::vector<std::unique_ptr<BlockRunner>> runners;
        try {
            do runners.push_back(Runners::take(size_.x * size_.y * size_.z));
            while (runners.size() < std::min<uint64_t>(blocks_.count, launch_.os_threads));
        } catch (const std::exception&) {  // no memory for more stacks: fewer will do
            if (runners.empty()) throw;
        }
        const size_t parts = runners.size();
        const auto work = [&](size_t i) { run_blocks(std::move(runners[i]), i, parts); };
        std::vector<std::thread> others;
        try {
            for (size_t i = 1; i < parts; i++) others.emplace_back(work, i);
        } catch (const std::exception&) {  // no more threads: this one does their parts
        }
        work(0);
        for (size_t i = others.size() + 1; i < parts; i++) work(i);
        for (std::thread& other : others) other.join();
        return !failed_;
    }

  private:
    void run_blocks(std::unique_ptr<BlockRunner> runner, size_t first, size_t step) {
        Block& block = runner->block();
        runner->shape(size_, grid_);
        block.order = Order(launch_.order), block.random = launch_.seed + first;
        block.kernel = kernel_, block.arguments = arguments_;
        block.report = report, block.report_to = this;
        const SharedMemory shared(launch_.shared_bytes);
        bool well = true;
        for (size_t i = first; well && i < blocks_.count && !failed_.load(std::memory_order_relaxed); i += step) {
            const uint64_t b = blocks_[i];
            well = runner->run({unsigned(b % grid_.x), unsigned(b / grid_.x % grid_.y),
                                unsigned(b / (uint64_t(grid_.x) * grid_.y))}, shared);
        }
        if (well) Runners::give_back(std::move(runner));
    }

    static void report(void* self, const std::string& what) {
        auto* grid = static_cast<Grid*>(self);
        const std::lock_guard<std::mutex> lock(grid->mutex_);
        if (!grid->failed_) std::snprintf(grid->launch_.message, grid->launch_.message_bytes, "%s", what.c_str());
        grid->failed_ = true;
    }

    const Launch& launch_;
    dim3 grid_, size_;
    void (*kernel_)(const void*);
    const void* arguments_;
    BlockOrder blocks_;
    std::mutex mutex_;
    std::atomic<bool> failed_{false};
};

template <class... P, size_t... I>
bool launch_kernel(void (*kernel)(P...), const Launch& launch, std::index_sequence<I...>) {
    struct Call {
        void (*kernel)(P...);
        std::tuple<P...> arguments;
    };
    const Call call{kernel, std::tuple<P...>(*static_cast<std::remove_const_t<P>*>(launch.arguments[I])...)};
    return Grid(launch, [](const void* c) {
        const Call& call = *static_cast<const Call*>(c);
        call.kernel(std::get<I>(call.arguments)...);
    }, &call).run();
}

// ---------------------------------------------------------------- what Python is told of a kernel

// One word a parameter: f4 i8 u1 b1 (kind and bytes), h2 half, B2 bfloat16, V16 a struct; in front of it P for a
// pointer, p for a pointer to const.
template <class T> std::string word() {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) {
        using To = std::remove_pointer_t<U>;
        return (std::is_const_v<To> ? "p" : "P") + word<To>();
    } else if constexpr (std::is_void_v<U>) return "V1";
    else if constexpr (std::is_same_v<U, __half>) return "h2";
    else if constexpr (std::is_same_v<U, __nv_bfloat16>) return "B2";
    else {
        const char* kind = std::is_same_v<U, bool> ? "b" : std::is_floating_point_v<U> ? "f"
                           : std::is_integral_v<U> ? (std::is_signed_v<U> ? "i" : "u") : "V";
        return kind + std::to_string(sizeof(U));
    }
}
template <class... P> std::string words(void (*)(P...)) {
    std::string all;
    ((all += (all.empty() ? "" : " ") + word<P>()), ...);
    return all;
}

template <class... P> int launch_by(void (*kernel)(P...), const Launch& launch) {
    try {
        return launch_kernel(kernel, launch, std::index_sequence_for<P...>{}) ? 0 : 1;
    } catch (const std::exception& error) {  // no memory
        std::snprintf(launch.message, launch.message_bytes, "the kernel cannot be started: %s", error.what());
        return 1;
    }
}

}  // namespace cuda_emulator

// name_launch(launch) runs it: 0, or 1 and a message. name_parameters() are its words, name_most_threads() its bounds.
#define CUDA_EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))
#define CUDA_EMULATOR_KERNEL(name, ...)                                                          \
    CUDA_EMULATOR_EXPORT int name##_launch(const cuda_emulator::Launch* launch) {                \
        return cuda_emulator::launch_by(name, *launch);                                          \
    }                                                                                            \
    CUDA_EMULATOR_EXPORT const char* name##_parameters() {                                       \
        static const std::string words = cuda_emulator::words(name);                             \
        return words.c_str();                                                                    \
    }                                                                                            \
    CUDA_EMULATOR_EXPORT int name##_most_threads() {                                             \
        const int bounds[] = {__VA_ARGS__ __VA_OPT__(,) 1024};                                   \
        return bounds[0];                                                                        \
    }
