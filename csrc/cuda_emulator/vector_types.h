// float4 and its relatives: plain structs, aligned as CUDA aligns them, so that one load fetches all of it.
#pragma once

#define CUDA_EMULATOR_VECTORS(name, T)                                                             \
    struct name##1 { T x; };                                                                       \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                             \
    struct name##3 { T x, y, z; };                                                                 \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };             \
    constexpr name##1 make_##name##1(T x) { return {x}; }                                          \
    constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                                  \
    constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                          \
    constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_EMULATOR_VECTORS(char, signed char)
CUDA_EMULATOR_VECTORS(uchar, unsigned char)
CUDA_EMULATOR_VECTORS(short, short)
CUDA_EMULATOR_VECTORS(ushort, unsigned short)
CUDA_EMULATOR_VECTORS(int, int)
CUDA_EMULATOR_VECTORS(uint, unsigned)
CUDA_EMULATOR_VECTORS(longlong, long long)
CUDA_EMULATOR_VECTORS(ulonglong, unsigned long long)
CUDA_EMULATOR_VECTORS(float, float)
CUDA_EMULATOR_VECTORS(double, double)
#undef CUDA_EMULATOR_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
