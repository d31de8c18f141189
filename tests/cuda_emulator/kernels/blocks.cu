// Barriers, shared memory and blocks of one, two and three dimensions.

extern "C" __global__ void indices(int* thread, int* block, int* sizes) {  // one number a thread of the grid
    const int size = blockDim.x * blockDim.y * blockDim.z;
    const int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    thread[b * size + t] = threadIdx.x + 100 * threadIdx.y + 10000 * threadIdx.z;
    block[b * size + t] = blockIdx.x + 100 * blockIdx.y + 10000 * blockIdx.z;
    if (b == 0 && t == 0) {
        sizes[0] = blockDim.x, sizes[1] = blockDim.y, sizes[2] = blockDim.z;
        sizes[3] = gridDim.x, sizes[4] = gridDim.y, sizes[5] = gridDim.z;
    }
}

// Sums of rows: a tree in dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256) row_sums(const float* x, float* sums, int width) {
    extern __shared__ float partial[];
    float sum = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += x[blockIdx.x * width + i];
    partial[threadIdx.x] = sum;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

// Prefix sums of up to blockDim.x numbers (Hillis and Steele), in place.
extern "C" __global__ void prefix_sums(int* x, int n) {
    extern __shared__ int row[];
    const int i = threadIdx.x;
    row[i] = i < n ? x[i] : 0;
    for (int distance = 1; distance < n; distance *= 2) {
        __syncthreads();
        const int before = i >= distance ? row[i - distance] : 0;
        __syncthreads();
        row[i] += before;
    }
    if (i < n) x[i] = row[i];
}

#define TILE 16
extern "C" __global__ void transpose(const float* x, float* y, int rows, int columns) {
    __shared__ float tile[TILE][TILE + 1];
    int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = x[row * columns + column];
    __syncthreads();
    row = blockIdx.x * TILE + threadIdx.y, column = blockIdx.y * TILE + threadIdx.x;
    if (row < columns && column < rows) y[row * rows + column] = tile[threadIdx.x][threadIdx.y];
}

// Threads beyond n return, and the others' barriers do not wait for them.
extern "C" __global__ void early_return(const int* x, int* y, int n) {
    __shared__ int s[256];
    const int i = threadIdx.x;
    if (i >= n) return;
    s[i] = x[i];
    __syncthreads();
    y[i] = s[n - 1 - i];
    __syncthreads();
    s[i] = y[i];
}

extern "C" __global__ void barrier_votes(const int* x, int* answers) {
    const int v = x[threadIdx.x];
    const int count = __syncthreads_count(v > 0), any = __syncthreads_or(v > 5), all = __syncthreads_and(v < 5);
    if (threadIdx.x == blockDim.x - 1) answers[0] = count, answers[1] = any, answers[2] = all;
}

// What a block finds in shared memory that nobody has written, and what it leaves there for the next one.
extern "C" __global__ void untouched(float* seen) {
    extern __shared__ float dynamic[];
    __shared__ float fixed;
    seen[2 * blockIdx.x] = dynamic[0], seen[2 * blockIdx.x + 1] = fixed;
    dynamic[0] = 1, fixed = 2;
}

// Two names of one thing.
extern "C" __global__ void same_memory(int* y) {
    extern __shared__ int words[];
    extern __shared__ unsigned char bytes[];
    words[threadIdx.x] = 0x01020304 * threadIdx.x;
    y[threadIdx.x] = bytes[4 * threadIdx.x];
}

template <class T> __device__ void scale(T* x, T factor) { x[threadIdx.x] *= factor; }
#define SCALE(name, T) extern "C" __global__ void name(T* x, T factor) { scale<T>(x, factor); }
SCALE(scale_float, float)
SCALE(scale_double, double)

struct Pair { int first; float second; };
extern "C" __global__ void all_kinds(const float* f, double* d, const short* s, unsigned char* u, bool b, long long l,
                                     Pair pair, const void* v, float* out) {
    out[0] = f ? f[0] : -1, out[1] = float(d[0]), out[2] = s[0], out[3] = u[0], out[4] = b, out[5] = float(l);
    out[6] = float(pair.first) + pair.second, out[7] = v != nullptr;
}

extern "C" __global__ void asserts(int n) {
    assert(n != 3);
    if (n == 4) __trap();
}

extern "C" __global__ void first_block(int* y) {
    y[0] = blockIdx.x, y[1] = blockIdx.y;
    __trap();
}

// Local memory: 480 KB of the 512 that a thread may have.
extern "C" __global__ void large_array(float* y, int n) {
    float numbers[120 << 10];
    for (int i = 0; i < n; i++) numbers[i] = threadIdx.x;
    __syncthreads();
    int right = 0;
    for (int i = 0; i < n; i++) right += numbers[i] == threadIdx.x;
    y[blockIdx.x * blockDim.x + threadIdx.x] = right;
}
