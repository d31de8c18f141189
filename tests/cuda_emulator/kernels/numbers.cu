// Small floats, vector types, intrinsics.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void convert(const float* x, __half* h, __nv_bfloat16* b, float* from_h, float* from_b, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    h[i] = __float2half(x[i]), b[i] = __float2bfloat16(x[i]);
    from_h[i] = __half2float(h[i]), from_b[i] = __bfloat162float(b[i]);
}

extern "C" __global__ void half_arithmetic(const __half* x, const __half* y, __half* z) {  // z (6, n)
    const int i = threadIdx.x, n = blockDim.x;
    z[i] = __hadd(x[i], y[i]), z[n + i] = __hmul(x[i], y[i]), z[2 * n + i] = __hfma(x[i], y[i], x[i]);
    const __half2 pair = __hadd2(__halves2half2(x[i], y[i]), __float2half2_rn(1.0f));
    z[3 * n + i] = __low2half(pair), z[4 * n + i] = __high2half(pair);
    z[5 * n + i] = __hlt(x[i], y[i]) ? x[i] : y[i];
}

extern "C" __global__ void vectors(const float4* x, float4* y, const uchar4* u, int* dots) {
    const int i = threadIdx.x;
    float4 v = x[i];
    v.w = v.x + v.y;
    y[i] = make_float4(v.w, v.z, v.y, v.x);
    const uchar4 w = u[i];
    const int bytes = *reinterpret_cast<const int*>(&w);
    dots[i] = __dp4a(bytes, 0x01ff0203, 1000);
}

extern "C" __global__ void integers(const int* x, int* y) {  // y (8, n)
    const int i = threadIdx.x, n = blockDim.x, v = x[i];
    y[i] = __popc(v), y[n + i] = __clz(v), y[2 * n + i] = __ffs(v), y[3 * n + i] = int(__brev(unsigned(v)));
    y[4 * n + i] = __float2int_rn(__int_as_float(v)), y[5 * n + i] = int(__umulhi(unsigned(v), 0x9E3779B9u));
    y[6 * n + i] = __mulhi(v, -12345), y[7 * n + i] = int(__byte_perm(unsigned(v), 0x44332211u, 0x7204));
}

// Without std and without f: the overload for float, of its precision.
extern "C" __global__ void overloads(const float* x, float* y, int* bytes) {  // y (9, n)
    const int i = threadIdx.x, n = blockDim.x;
    const float v = x[i];
    y[i] = abs(-v), y[n + i] = exp(v), y[2 * n + i] = log(v), y[3 * n + i] = sqrt(v), y[4 * n + i] = pow(v, v);
    y[5 * n + i] = floor(v), y[6 * n + i] = tanh(v), y[7 * n + i] = erf(v), y[8 * n + i] = rsqrt(v);
    if (i == 0) {
        bytes[0] = sizeof(abs(v)), bytes[1] = sizeof(exp(v)), bytes[2] = sizeof(log(v)), bytes[3] = sizeof(sqrt(v));
        bytes[4] = sizeof(pow(v, v)), bytes[5] = sizeof(floor(v)), bytes[6] = sizeof(tanh(v));
        bytes[7] = sizeof(erf(v)), bytes[8] = sizeof(rsqrt(v));
    }
}
