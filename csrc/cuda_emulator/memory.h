// Memory that CUDA threads share: __shared__, atomics, fences.
//
// __shared__ is thread_local: a block runs on one OS thread, so what is one OS thread's is one block's. Inside a
// function thread_local also means static, which is what __shared__ needs; and for `extern __shared__ float tile[]`
// the build (minitransformer/kernels/cuda/build.py) adds a thread_local array of that name, as large as a GPU's can be.
//
// Shared memory is uninitialised on a GPU. Here every block finds all its bits set, NaN or -1, so that a result
// that depends on what the block before it left behind shows.
#pragma once
#include <cstring>

#if defined(__linux__)
#include <link.h>
#endif

#include "scheduler.h"

struct __half;
struct __nv_bfloat16;

// The array behind `extern __shared__`, where the kernel has one.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char* cuda_emulator_dynamic_shared();

namespace cuda_emulator {

class SharedMemory {
  public:
    static constexpr size_t largest = 227 << 10;  // the H100's and B200's; others have less
    static constexpr size_t guard = 1024;         // behind it, to see writes that go too far
    static constexpr unsigned char undefined = 0xff, untouched = 0xa5;

    // Of the calling OS thread; `dynamic` bytes were asked for.
    explicit SharedMemory(size_t dynamic) : dynamic_(dynamic) {
        if (cuda_emulator_dynamic_shared) memory_ = cuda_emulator_dynamic_shared();
        find_static();
        if (!memory_) return;
        std::memset(memory_ + dynamic_, untouched, guard);
        asan::forbid(memory_ + dynamic_, largest + guard - dynamic_);
    }
    SharedMemory(const SharedMemory&) = delete;
    ~SharedMemory() {
        if (memory_) asan::allow(memory_, largest + guard);
    }

    void poison() const {
        if (memory_) std::memset(memory_, undefined, dynamic_);
        Thread* const keep = running;
        unsigned char* const gap = memory_ ? memory_ : static_end_;
        if (gap > static_) std::memset(static_, undefined, size_t(gap - static_));
        if (memory_ && static_end_ > memory_ + largest + guard)
            std::memset(memory_ + largest + guard, undefined, size_t(static_end_ - memory_ - largest - guard));
        running = keep;
    }

    // How many bytes beyond the end the last write was that nobody may make; 0 where there was none.
    size_t written_beyond() const {
        if (!memory_ || CUDA_EMULATOR_ASAN) return 0;
        size_t end = guard;
        while (end > 0 && memory_[dynamic_ + end - 1] == untouched) end--;
        return end;
    }

  private:
    size_t dynamic_;
    unsigned char *memory_ = nullptr, *static_ = nullptr, *static_end_ = nullptr;

    // All thread_local variables of this library lie together: those of the kernels, the array above, and `running`.
    void find_static() {
#if defined(__linux__)
        // Where `running` is must be found out before: the first touch of a thread_local may take the loader's lock, and
        // dl_iterate_phdr holds another, which a dlopen in another thread takes in the opposite order.
        struct Search {
            const unsigned char* mine;
            unsigned char *begin, *end;
        } found{reinterpret_cast<unsigned char*>(&running), nullptr, nullptr};
        dl_iterate_phdr([](dl_phdr_info* library, size_t, void* search) {
            auto& found = *static_cast<Search*>(search);
            auto* begin = static_cast<unsigned char*>(library->dlpi_tls_data);
            for (int i = 0; begin && i < library->dlpi_phnum; i++) {
                const size_t bytes = library->dlpi_phdr[i].p_memsz;
                if (library->dlpi_phdr[i].p_type != PT_TLS) continue;
                if (found.mine < begin || found.mine >= begin + bytes) continue;
                found.begin = begin, found.end = begin + bytes;
                return 1;
            }
            return 0;
        }, &found);
        static_ = found.begin, static_end_ = found.end;
#endif
    }
};

// ---------------------------------------------------------------- atomics

// A place where others may come in between: sometimes in random order; else so seldom that it costs nothing and yet a
// thread that waits for another one's flag lets it run.
CUDA_EMULATOR_UNSEEN inline void let_others_run() {
    if (!running) return;
    Block& block = *running->block;
    if (block.order == Order::random ? draw(block) % 4 == 0 : ++block.atomics % 1024 == 0) yield();
}

// *p = change(*p) as one step; returns what was there before.
template <class T, class Change> inline T read_modify_write(T* p, Change change) {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
    using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
    let_others_run();
    Bits* const bits = reinterpret_cast<Bits*>(p);
    Bits before = __atomic_load_n(bits, __ATOMIC_RELAXED), after;
    T value;
    do {
        std::memcpy(&value, &before, sizeof value);
        const T changed = change(value);
        std::memcpy(&after, &changed, sizeof changed);
    } while (!__atomic_compare_exchange_n(bits, &before, after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return value;
}

inline char fence;  // for ThreadSanitizer

// A GPU has each atomic for a few types only, and nvcc refuses the others.
template <class T, class... Types> concept one_of = (std::is_same_v<T, Types> || ...);

}  // namespace cuda_emulator

template <cuda_emulator::one_of<int, unsigned, unsigned long long, float, double, __half, __nv_bfloat16> T>
inline T atomicAdd(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return T(x + v); });
}
template <cuda_emulator::one_of<int, unsigned> T>
inline T atomicSub(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return T(x - v); });
}
template <cuda_emulator::one_of<int, unsigned, long long, unsigned long long> T>
inline T atomicMax(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return x < v ? v : x; });
}
template <cuda_emulator::one_of<int, unsigned, long long, unsigned long long> T>
inline T atomicMin(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return v < x ? v : x; });
}
template <cuda_emulator::one_of<int, unsigned, unsigned long long, float> T>
inline T atomicExch(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T) { return v; });
}
template <cuda_emulator::one_of<int, unsigned, unsigned long long, unsigned short> T>
inline T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return x == expected ? v : x; });
}
template <cuda_emulator::one_of<int, unsigned, unsigned long long> T>
inline T atomicAnd(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return T(x & v); });
}
template <cuda_emulator::one_of<int, unsigned, unsigned long long> T>
inline T atomicOr(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return T(x | v); });
}
template <cuda_emulator::one_of<int, unsigned, unsigned long long> T>
inline T atomicXor(T* p, std::type_identity_t<T> v) {
    return cuda_emulator::read_modify_write(p, [=](T x) { return T(x ^ v); });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
    return cuda_emulator::read_modify_write(p, [=](unsigned x) { return x >= limit ? 0 : x + 1; });
}
inline unsigned atomicDec(unsigned* p, unsigned limit) {
    return cuda_emulator::read_modify_write(p, [=](unsigned x) { return x == 0 || x > limit ? limit : x - 1; });
}

// Orders the caller's memory, for everybody who sees it through a fence of their own.
inline void __threadfence() {
#if !CUDA_EMULATOR_TSAN
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    cuda_emulator::tsan::acquire(&cuda_emulator::fence);
    cuda_emulator::tsan::release(&cuda_emulator::fence);
}
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { cuda_emulator::yield(); }
