// What ThreadSanitizer and AddressSanitizer have to be told: which stack is in use, what orders memory, what may not be
// touched. Without them every function here is empty.
//
// ThreadSanitizer takes each fiber for a thread, so that it sees a race between two CUDA threads although one OS thread
// runs both. What the emulator itself reads and writes would then be races too: CUDA_EMULATOR_UNSEEN hides it.
#pragma once
#include <cstddef>

#if defined(__has_feature)
#define CUDA_EMULATOR_HAS(feature) __has_feature(feature)
#else
#define CUDA_EMULATOR_HAS(feature) 0
#endif

#if defined(__SANITIZE_THREAD__) || CUDA_EMULATOR_HAS(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define CUDA_EMULATOR_TSAN 1
#define CUDA_EMULATOR_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
#define CUDA_EMULATOR_TSAN 0
#define CUDA_EMULATOR_UNSEEN
#endif

#if defined(__SANITIZE_ADDRESS__) || CUDA_EMULATOR_HAS(address_sanitizer)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define CUDA_EMULATOR_ASAN 1
#else
#define CUDA_EMULATOR_ASAN 0
#endif

#if CUDA_EMULATOR_TSAN
#define CUDA_EMULATOR_COLD __attribute__((cold, noinline, no_sanitize("thread")))
#else
#define CUDA_EMULATOR_COLD __attribute__((cold, noinline))
#endif

namespace cuda_emulator {

namespace tsan {
#if CUDA_EMULATOR_TSAN
inline void* create_fiber() { return __tsan_create_fiber(0); }
inline void* current_fiber() { return __tsan_get_current_fiber(); }
inline void destroy_fiber(void* fiber) { if (fiber) __tsan_destroy_fiber(fiber); }
// What one thread did before release(where) has happened before what another does after acquire(where).
inline void release(void* where) { __tsan_release(where); }
inline void acquire(void* where) { __tsan_acquire(where); }
#else
inline void* create_fiber() { return nullptr; }
inline void* current_fiber() { return nullptr; }
inline void destroy_fiber(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
#endif
}  // namespace tsan

namespace asan {
#if CUDA_EMULATOR_ASAN
inline void forbid(void* memory, size_t bytes) { ASAN_POISON_MEMORY_REGION(memory, bytes); }
inline void allow(void* memory, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(memory, bytes); }
#else
inline void forbid(void*, size_t) {}
inline void allow(void*, size_t) {}
#endif
}  // namespace asan

}  // namespace cuda_emulator
