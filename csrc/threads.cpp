#include "threads.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "integers.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mt {
namespace {

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spinning is right while the other thread runs; giving way now and then is right when it has lost its CPU.
template <class Done> void spin_until(Done done) {
    for (int i = 1; !done(); i++) {
        pause();
        if (i % 4096 == 0) std::this_thread::yield();
    }
}

// The CPUs that this process may use.
std::vector<int> allowed_cpus() {
    std::vector<int> cpus;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int c = 0; c < CPU_SETSIZE; c++)
            if (CPU_ISSET(c, &set)) cpus.push_back(c);
#endif
    if (cpus.empty())
        for (unsigned c = 0; c < std::thread::hardware_concurrency(); c++) cpus.push_back(int(c));
    if (cpus.empty()) cpus.push_back(0);
    return cpus;
}

int default_count() {
    if (const char* text = std::getenv("MINITRANSFORMER_NUM_THREADS"); text && *text) {
        char* end;
        long n = std::strtol(text, &end, 10);
        if (*end || n < 1 || n > 1024)
            throw std::invalid_argument("MINITRANSFORMER_NUM_THREADS must be an integer from 1 to 1024, got " +
                                        std::string(text));
        return int(n);
    }
    int n = int(allowed_cpus().size());
    std::string quota;  // a container may be allowed fewer CPUs than it sees
    double period = 0;
    if (std::ifstream("/sys/fs/cgroup/cpu.max") >> quota >> period && quota != "max" && period > 0) {
        int granted = int(std::stod(quota) / period + 0.999);
        if (granted >= 1 && granted < n) n = granted;
    }
    return n;
}

thread_local bool inside = false;  // this thread is running a region's body

class Pool {
  public:
    explicit Pool(int threads) : threads_(threads), own_(new Counter[threads]), cpus_(allowed_cpus()) {
        sigset_t all, before;  // signals go to the user's threads
        sigfillset(&all);
        workers_.reserve(threads);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        try {
            for (int t = 1; t < threads; t++) workers_.emplace_back([this, t] { work(t); });
        } catch (const std::exception&) {  // the system grants no more: fewer give the same results
            threads_ = int(workers_.size()) + 1;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        pin_ = int(cpus_.size()) == threads_;  // a smaller pool stays free: another process would pin to the same CPUs
        for (int t = 1; pin_ && t < threads_; t++) pin(t);
    }
    ~Pool() {
        stop_.store(true);
        word_.fetch_add(step);
        word_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    int threads() const { return threads_; }
    std::atomic<long>& own(int thread) { return own_[thread].value; }

    void run(int threads, void (*body)(void*, Team&), void* context) {
        if (pin_) place();
        body_ = body;
        context_ = context;
        shared_.next.store(0, std::memory_order_relaxed);
        finished_.store(0, std::memory_order_relaxed);
        const uint32_t word = (word_.load(std::memory_order_relaxed) / step + 1) * step + uint32_t(threads);
        shared_.gate.store(uint64_t(word) << 32, std::memory_order_release);
        word_.store(word, std::memory_order_release);
        word_.notify_all();
        call(0);
        const int joined = shared_.close();
        spin_until([&] { return finished_.load(std::memory_order_acquire) == joined; });
    }

  private:
    struct alignas(64) Counter { std::atomic<long> value{0}; };

    // A region is announced by a new word and entered through a gate that shows the same word. The caller shuts it when
    // the work is done and waits for those inside only: a worker that is asleep, or whose CPU another process has,
    // costs nothing but its help. Who is inside is waited for, so everything it reads stays as it is.
    static constexpr uint32_t step = 2048;  // the low 11 bits of a word: threads asked for
    static constexpr int spins = 4000;      // some 50 us: the next kernel is usually there by then

    void call(int thread) {
        Team team(shared_, thread);
        inside = true;
        body_(context_, team);
        inside = false;
    }
    void work(int thread) {
        uint32_t seen = 0;
        for (;;) {
            for (int i = 0; i < spins && word_.load(std::memory_order_acquire) == seen; i++) pause();
            word_.wait(seen, std::memory_order_acquire);  // sleeps; returns at once when the word has moved on
            seen = word_.load(std::memory_order_acquire);
            if (stop_.load()) return;
            if (thread < int(seen % step) && shared_.enter(seen)) {
                call(thread);
                finished_.fetch_add(1, std::memory_order_release);
            }
        }
    }

    // Schedulers like to wake a worker on its waker's CPU and to leave both there: half speed for seconds. So each
    // worker has a CPU of its own, and changes places with the caller when the caller has moved. The caller itself,
    // which is the user's thread, stays free. cpus_[0] is where the caller was last, cpus_[t] where worker t is.
    void place() {
#if defined(__linux__)
        int here = sched_getcpu();
        if (here == cpus_[0]) return;
        for (int t = 1; t < threads_; t++)
            if (cpus_[t] == here) {
                cpus_[t] = cpus_[0];
                cpus_[0] = here;
                pin(t);
            }
#endif
    }
    void pin([[maybe_unused]] int t) {
#if defined(__linux__)
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpus_[t], &set);
        pthread_setaffinity_np(workers_[t - 1].native_handle(), sizeof set, &set);
#endif
    }

    int threads_;
    void (*body_)(void*, Team&) = nullptr;
    void* context_ = nullptr;
    Team::Shared shared_;
    alignas(64) std::atomic<uint32_t> word_{0};
    alignas(64) std::atomic<int> finished_{0};
    std::atomic<bool> stop_{false};
    std::unique_ptr<Counter[]> own_;
    std::vector<int> cpus_;
    bool pin_ = false;
    std::vector<std::thread> workers_;
};

std::atomic<bool> busy{false};  // held by the caller of a region, for as long as it runs; guards `pool`
Pool* pool = nullptr;           // made by the first region; not destroyed at exit: the workers sleep until the end
std::atomic<int> wanted{0};

// The pool, for the caller alone until release(); nullptr where the caller has to work by itself.
Pool* acquire() {
    if (inside || thread_count() == 1 || busy.exchange(true, std::memory_order_acquire)) return nullptr;
    if (!pool) {
        // The child of a fork has none of the workers: it forgets the pool, which cannot be joined, and makes a new
        // one.
        static int registered = pthread_atfork(nullptr, nullptr, [] { pool = nullptr, busy.store(false); });
        (void)registered;
        try {
            pool = new Pool(thread_count());
        } catch (const std::bad_alloc&) {
            busy.store(false, std::memory_order_release);
            return nullptr;
        }
    }
    return pool;
}
void release() { busy.store(false, std::memory_order_release); }

}  // namespace

int thread_count() {
    int n = wanted.load(std::memory_order_relaxed);
    if (n == 0) wanted.store(n = default_count());
    return n;
}

void set_thread_count(int n) {
    if (n < 1 || n > 1024)
        throw std::invalid_argument("set_thread_count: n must lie in 1..1024, got " + std::to_string(n));
    spin_until([] { return !busy.exchange(true, std::memory_order_acquire); });
    delete pool;
    pool = nullptr;
    wanted.store(n);
    release();
}

bool Team::Shared::enter(uint32_t word) {
    for (uint64_t seen = gate.load(std::memory_order_acquire); seen >> 32 == word && !(seen & closed);)
        if (gate.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire))
            return true;
    return false;
}

int Team::Shared::close() { return int(gate.fetch_or(closed, std::memory_order_acq_rel) & (closed - 1)); }

void Team::barrier() {
    const int workers = shared_.close();
    const unsigned phase = shared_.phase.load(std::memory_order_relaxed);
    if (shared_.arrived.fetch_add(1, std::memory_order_acq_rel) == workers) {
        shared_.arrived.store(0, std::memory_order_relaxed);
        shared_.next.store(0, std::memory_order_relaxed);
        shared_.phase.store(phase + 1, std::memory_order_release);
    } else {
        spin_until([&] { return shared_.phase.load(std::memory_order_acquire) != phase; });
    }
}

void run_region(int most, void (*body)(void*, Team&), void* context) {
    Pool* workers = most > 1 ? acquire() : nullptr;
    if (!workers) {
        Team::Shared alone;
        Team team(alone, 0);
        return body(context, team);
    }
    workers->run(std::min(most, workers->threads()), body, context);
    release();
}

void run_chunks(long n, long grain, int most, void (*body)(void*, long, long, int), void* context) {
    const long chunks = divide_up(n, grain);
    auto chunk = [&](long i, int thread) { body(context, i * grain, std::min((i + 1) * grain, n), thread); };
    Pool* workers = chunks > 1 && most > 1 ? acquire() : nullptr;
    if (!workers) {
        for (long i = 0; i < chunks; i++) chunk(i, 0);
        return;
    }
    const int threads = int(std::min({chunks, long(workers->threads()), long(most)}));
    auto border = [&](int t) { return chunks * t / threads; };  // thread t begins with [border(t), border(t + 1))
    for (int t = 0; t < threads; t++) workers->own(t).store(border(t), std::memory_order_relaxed);
    auto share = [&](Team& team) {
        for (int i = 0; i < threads; i++) {
            const int t = (team.thread() + i) % threads;
            std::atomic<long>& next = workers->own(t);
            for (long c; (c = next.fetch_add(1, std::memory_order_relaxed)) < border(t + 1);) chunk(c, team.thread());
        }
    };
    workers->run(threads, [](void* f, Team& team) { (*static_cast<decltype(share)*>(f))(team); }, &share);
    release();
}

void* thread_scratch(std::size_t bytes) {
    struct Free { void operator()(void* p) const { std::free(p); } };
    static thread_local std::unique_ptr<void, Free> memory;
    static thread_local std::size_t size = 0;
    if (bytes > size) {
        memory.reset();
        size = 0;
        bytes = (bytes + 4095) / 4096 * 4096;
        memory.reset(std::aligned_alloc(64, bytes));
        if (!memory) throw std::bad_alloc();
        size = bytes;
    }
    return memory.get();
}

}  // namespace mt
