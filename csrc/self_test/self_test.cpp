// The kernels without Python: each against a plain loop in double, on every instruction set that is compiled in. For
// processors on which the extension was only cross-compiled (built by CMake with MINITRANSFORMER_SELF_TEST):
//
//   cmake -B build/aarch64 -DMINITRANSFORMER_SELF_TEST=ON -DCMAKE_TOOLCHAIN_FILE=csrc/self_test/aarch64.cmake
//   cmake --build build/aarch64 && qemu-aarch64 build/aarch64/self_test
//
// The thorough tests are in tests/kernels; here are few sizes, odd ones and some that keep all threads busy.
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "activation.hpp"
#include "adamw.hpp"
#include "attention.hpp"
#include "cross_entropy.hpp"
#include "dropout.hpp"
#include "embedding.hpp"
#include "matmul.hpp"
#include "matmul_bfloat16.hpp"
#include "normalization.hpp"
#include "quantized_gemm.hpp"
#include "random.hpp"
#include "softmax.hpp"
#include "sparse_feed_forward.hpp"
#include "threads.hpp"
#include "topk_activation.hpp"

using namespace mt;

namespace {

int failures = 0, checks = 0;

// Normal enough: the sum of four uniform numbers, the same on every machine.
template <class T> std::vector<T> numbers(long n) {
    static uint64_t state = 1;
    std::vector<T> x(static_cast<size_t>(n));
    for (T& value : x) {
        double sum = -2;
        for (int i = 0; i < 4; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += double(state >> 40) / 16777216;
        }
        value = T(sum * 1.7);
    }
    return x;
}

// Within `roundings` times eps of the largest expected number.
template <class T>
void expect(const std::string& what, const std::vector<T>& got, const std::function<double(long)>& expected,
            double roundings) {
    double worst = 0, largest = 1e-30;
    for (size_t i = 0; i < got.size(); i++) largest = std::fmax(largest, std::fabs(expected(long(i))));
    for (size_t i = 0; i < got.size(); i++) {
        const double error = std::fabs(double(got[i]) - expected(long(i)));
        worst = error <= worst ? worst : error;  // a NaN stays
    }
    const double allowed = roundings * double(std::numeric_limits<T>::epsilon()) * largest;
    checks++;
    if (worst <= allowed) return;
    failures++;
    std::printf("FAILED %s, %s: error %.3g, allowed %.3g\n", what.c_str(), sizeof(T) == 4 ? "float" : "double", worst,
                allowed);
}

template <class T> void matmul(long M, long N, long K) {
    const auto a = numbers<T>(M * K), b = numbers<T>(K * N), bias = numbers<T>(N);
    for (const bool a_transposed : {false, true})
        for (const bool b_transposed : {false, true}) {
            std::vector<T> c(size_t(M * N));
            Matrix<const T> left{a.data(), K, 1}, right{b.data(), N, 1};
            if (a_transposed) left = {a.data(), 1, M};
            if (b_transposed) right = {b.data(), 1, K};
            matmul_kernels<T>().multiply({M, N, K, left, right, {c.data(), N, 1}, bias.data()});
            expect<T>("matmul", c, [&](long i) {
                double sum = bias[i % N];
                for (long k = 0; k < K; k++)
                    sum += double(left.data[i / N * left.row + k * left.column]) *
                           right.data[k * right.row + i % N * right.column];
                return sum;
            }, 4 * std::sqrt(double(K + 1)));
        }
}

void matmul_bfloat16(long M, long N, long K) {
    const auto a = numbers<float>(M * K), b = numbers<float>(K * N);
    std::vector<float> c(size_t(M * N));
    matmul_bfloat16_kernels<float>().multiply({M, N, K, {a.data(), K, 1}, {b.data(), N, 1}, {c.data(), N, 1}});
    auto rounded = [](float x) {
        const auto bits = std::bit_cast<uint32_t>(x);
        return double(std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000));
    };
    expect<float>("matmul_bfloat16", c, [&](long i) {
        double sum = 0;
        for (long k = 0; k < K; k++) sum += rounded(a[i / N * K + k]) * rounded(b[k * N + i % N]);
        return sum;
    }, 4 * std::sqrt(double(K)));
}

// Codes and inputs at their extremes, scales of 1/2: every sum is exact, whether of integers or of floats.
void quantized(WeightFormat format, bool panels, long M, long N, long K) {
    const uint16_t half = 0x3800, minus_three = 0xc200;  // float16
    const float scale = 0.5f;
    const bool bytes = has_bytes(format), one_group = has_one_group(format), zeros = format == WeightFormat::int4_zero;
    QuantizedWeight w{format, panels, N, K, one_group ? K : 32, nullptr};
    const long beside = panels ? PANEL : 1, groups = groups_of(w), size = stored_block(w);
    const long code_bytes = size - beside * side_bytes(format);
    std::vector<uint8_t> data(size_t(divide_up(N, beside) * groups * size));
    std::vector<double> value(size_t(N * K));
    for (long n = 0; n < N; n++)
        for (long g = 0; g < groups; g++) {
            uint8_t* block = data.data() + (n / beside * groups + g) * size;
            uint8_t *codes = panels ? block : block + side_bytes(format), *side = panels ? block + code_bytes : block;
            const long r = n % beside, zero = zeros ? (n + 5 * g) % 16 : bytes || has_minimum(format) ? 0 : 8;
            if (one_group) std::memcpy(side + 4 * r, &scale, 4);
            else std::memcpy(side + 2 * r, &half, 2);
            if (zeros) side[2 * beside + r] = uint8_t(zero);
            if (has_minimum(format)) std::memcpy(side + 2 * (beside + r), &minus_three, 2);
            for (long k = 0; k < w.group; k++) {
                const long any = 131 * n + 57 * (g * w.group + k);
                const long code = bytes ? (n ? any % 256 - 128 : -128) : n ? any % 16 : 15;
                const long byte = bytes ? k : k % 16;  // of two 4-bit codes the one is 16 behind the other
                uint8_t& at = codes[panels ? byte / 4 * 64 + 4 * r + byte % 4 : byte];
                at = bytes ? uint8_t(code ^ (panels ? 128 : 0)) : uint8_t(at | code << (k < 16 ? 0 : 4));
                value[n * K + g * w.group + k] = 0.5 * double(code - zero) - (has_minimum(format) ? 3 : 0);
            }
        }
    w.data = data.data();
    std::vector<float> x(size_t(M * K)), y(size_t(M * N));
    for (long i = 0; i < M * K; i++) x[i] = i < K ? 127 : float(29 * i % 255 - 127);
    for (const bool integer : {false, true}) {
        quantized_kernels<float>().multiply(
            {M, x.data(), K, w, nullptr, EpilogueFunction::none, integer, integer ? 1.f : 0.f, y.data()});
        expect<float>("quantized_gemm, format " + std::to_string(int(format)), y, [&](long i) {
            double sum = 0;
            for (long k = 0; k < K; k++) sum += x[i / N * K + k] * value[i % N * K + k];
            return sum;
        }, 0);
    }
}

template <class T> void attention(long Tq, long Tk, long d, bool causal) {
    const auto q = numbers<T>(Tq * d), k = numbers<T>(Tk * d), v = numbers<T>(Tk * d), dout = numbers<T>(Tq * d);
    const double scale = 1 / std::sqrt(double(d));
    std::vector<double> p(size_t(Tq * Tk)), out(size_t(Tq * d)), ds(size_t(Tq * Tk));
    for (long i = 0; i < Tq; i++) {
        const long seen = causal ? std::min(Tk, i + 1 + Tk - Tq) : Tk;
        double sum = 0, delta = 0;
        for (long j = 0; j < seen; j++) {
            double s = 0;
            for (long n = 0; n < d; n++) s += double(q[i * d + n]) * k[j * d + n];
            sum += p[i * Tk + j] = std::exp(s * scale);
        }
        for (long j = 0; j < seen; j++) {
            p[i * Tk + j] /= sum;
            for (long n = 0; n < d; n++) {
                out[i * d + n] += p[i * Tk + j] * v[j * d + n];
                ds[i * Tk + j] += double(dout[i * d + n]) * v[j * d + n];
            }
        }
        for (long n = 0; n < d; n++) delta += out[i * d + n] * dout[i * d + n];
        for (long j = 0; j < Tk; j++) ds[i * Tk + j] = p[i * Tk + j] * (ds[i * Tk + j] - delta) * scale;
    }
    std::vector<T> o(size_t(Tq * d)), lse(o.size() / size_t(d)), dq(o.size()), dk(size_t(Tk * d)), dv(dk.size());
    AttentionInput<T> in{};
    in.batches = in.heads = in.groups = 1, in.queries = Tq, in.keys = Tk, in.width = in.value_width = d;
    in.q = {q.data(), 0, 0, d}, in.k = {k.data(), 0, 0, d}, in.v = {v.data(), 0, 0, d};
    in.scale = scale, in.sight.causal = causal, in.sight.offset = Tk - Tq;
    const auto& kernels = attention_kernels<T>();
    kernels.forward(in, {o.data(), 0, 0, d}, lse.data());
    kernels.backward(in, {dout.data(), 0, 0, d}, {o.data(), 0, 0, d}, lse.data(), {dq.data(), 0, 0, d},
                     {dk.data(), 0, 0, d}, {dv.data(), 0, 0, d});
    const double roundings = 20 * std::sqrt(double(Tk + d));
    expect<T>("attention", o, [&](long i) { return out[i]; }, roundings);
    auto product = [&](const std::vector<double>& a, long row, long column, const std::vector<T>& b, long length) {
        return [&, row, column, length](long i) {
            double sum = 0;
            for (long m = 0; m < length; m++) sum += a[i / d * row + m * column] * b[m * d + i % d];
            return sum;
        };
    };
    expect<T>("attention, dq", dq, product(ds, Tk, 1, k, Tk), roundings);
    expect<T>("attention, dk", dk, product(ds, 1, Tk, q, Tq), roundings);
    expect<T>("attention, dv", dv, product(p, 1, Tk, dout, Tq), roundings);
}

template <class T> void rows(long N, long n) {
    const auto x = numbers<T>(N * n), weight = numbers<T>(n), bias = numbers<T>(n);
    std::vector<T> y(x.size()), mean(static_cast<size_t>(N)), rstd(mean), lse(mean), losses(mean);
    auto sum = [&](long i, auto f) {
        double total = 0;
        for (long j = i / n * n; j < i / n * n + n; j++) total += f(double(x[j]));
        return total;
    };
    const double roundings = 8 * std::sqrt(double(n));
    auto softmax = [&](long i) { return std::exp(double(x[i])) / sum(i, [](double a) { return std::exp(a); }); };
    softmax_kernels<T>().forward({N, n, 1}, x.data(), y.data());
    expect<T>("softmax", y, softmax, roundings);
    softmax_kernels<T>().log_forward({N, n, 1}, x.data(), y.data());
    expect<T>("log_softmax", y, [&](long i) { return std::log(softmax(i)); }, roundings);
    auto average = [&](long i) { return sum(i, [](double a) { return a; }) / n; };
    normalization_kernels<T>().layer_norm(N, n, x.data(), weight.data(), bias.data(), 1e-5, y.data(), mean.data(),
                                          rstd.data());
    expect<T>("layer_norm", y, [&](long i) {
        const double m = average(i), variance = sum(i, [=](double a) { return (a - m) * (a - m); }) / n;
        return (x[i] - m) / std::sqrt(variance + 1e-5) * weight[i % n] + bias[i % n];
    }, 4 * roundings);
    normalization_kernels<T>().rms_norm(N, n, x.data(), weight.data(), 1e-5, y.data(), rstd.data());
    expect<T>("rms_norm", y, [&](long i) {
        return x[i] / std::sqrt(sum(i, [](double a) { return a * a; }) / n + 1e-5) * weight[i % n];
    }, roundings);
    std::vector<int64_t> targets;
    for (long i = 0; i < N; i++) targets.push_back(i % 5 == 4 ? -100 : i % n);
    cross_entropy_kernels<T>().forward(N, n, x.data(), {targets.data(), -100, 0.0}, losses.data(), lse.data());
    expect<T>("cross_entropy", losses, [&](long r) {
        return targets[r] < 0 ? 0 : -std::log(softmax(r * n + targets[r]));
    }, roundings);
    const auto& activation = activation_kernels<T>();
    activation.gelu(N * n, x.data(), y.data());
    expect<T>("gelu", y, [&](long i) { return x[i] * std::erfc(-x[i] / std::sqrt(2.0)) / 2; }, 8);
    activation.gelu_tanh(N * n, x.data(), y.data());
    expect<T>("gelu, tanh", y, [&](long i) {
        const double a = x[i];
        return a * (1 + std::tanh(std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a))) / 2;
    }, 8);
    activation.silu(N * n, x.data(), y.data());
    expect<T>("silu", y, [&](long i) { return x[i] / (1 + std::exp(-double(x[i]))); }, 8);

    const long k = (n + 6) / 7;
    std::vector<int32_t> kept(size_t(N * k));
    topk_activation_kernels<T>().select(N, n, k, false, x.data(), y.data(), kept.data());
    expect<T>("topk_activation", y, [&](long i) {
        long before = 0;
        for (long j = i / n * n; j < i / n * n + n; j++) before += x[j] > x[i] || (x[j] == x[i] && j < i);
        return before < k ? double(x[i]) : 0.0;
    }, 0);
    std::vector<int64_t> chosen;
    for (long j = 0; j < N; j += 2) chosen.push_back(j);
    const long taken = long(chosen.size());
    const auto tokens = numbers<T>(3 * n);
    std::vector<T> dots(size_t(3 * taken)), sums(size_t(3 * n));
    const GatheredInput<T> gathered{x.data(), chosen.data(), 3, taken, n, true};
    sparse_feed_forward_kernels<T>().linear(gathered, tokens.data(), dots.data());
    expect<T>("gathered_linear", dots, [&](long i) {
        double total = 0;
        for (long j = 0; j < n; j++) total += double(tokens[i / taken * n + j]) * x[chosen[i % taken] * n + j];
        return total;
    }, roundings);
    sparse_feed_forward_kernels<T>().sum(gathered, dots.data(), sums.data());
    expect<T>("gathered_sum", sums, [&](long i) {
        double total = 0;
        for (long j = 0; j < taken; j++) total += double(dots[i / n * taken + j]) * x[chosen[j] * n + i % n];
        return total;
    }, 8 * std::sqrt(double(taken)));
}

template <class T> void update(long n) {
    const auto gradient = numbers<T>(n), before = numbers<T>(n);
    auto parameter = before, m = numbers<T>(n), v = m;
    for (T& value : v) value *= value;
    const auto m0 = m, v0 = v;
    const AdamW hyper{0.01, 0.9, 0.99, 1e-8, 0.1, 0.5, 0.3};
    adamw_kernels<T>().step(n, parameter.data(), gradient.data(), m.data(), v.data(), hyper);
    expect<T>("adamw", parameter, [&](long i) {
        const double g = gradient[i], mean = 0.9 * m0[i] + 0.1 * g, square = 0.99 * v0[i] + 0.01 * g * g;
        return before[i] * (1 - 0.01 * 0.1) - 0.01 * (mean / 0.5) / (std::sqrt(square / 0.3) + 1e-8);
    }, 8);
    const double norm = adamw_kernels<T>().squared_norm(n, gradient.data());
    expect<double>("squared_norm", {norm}, [&](long) {
        double sum = 0;
        for (const T g : gradient) sum += double(g) * g;
        return sum;
    }, double(n));
}

void random_words() {
    // The known answers of Salmon et al. (kat_vectors of Random123): counter and key 0.
    std::vector<uint32_t> words(6);
    random_kernels<uint32_t>().bits(0, 0, 6, words.data());
    const uint32_t expected[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    for (int i = 0; i < 4; i++) {
        checks++;
        if (words[size_t(i)] == expected[i]) continue;
        failures++;
        std::printf("FAILED random_bits: word %d is %08x\n", i, words[size_t(i)]);
    }
}

template <class T> void all() {
    const long products[][3] = {{1, 1, 1}, {7, 33, 5}, {1, 70, 600}, {65, 31, 130}, {150, 260, 90}};
    for (const auto& [M, N, K] : products) matmul<T>(M, N, K);
    const long lengths[][3] = {{1, 1, 1}, {5, 9, 7}, {1, 300, 64}, {150, 150, 33}, {260, 260, 65}};
    for (const auto& [Tq, Tk, d] : lengths)
        for (const bool causal : {false, true}) attention<T>(Tq, Tk, d, causal);
    const long shapes[][2] = {{1, 1}, {3, 7}, {70, 65}, {300, 129}};
    for (const auto& [N, n] : shapes) rows<T>(N, n);
    for (const long n : {1l, 37l, 70000l}) update<T>(n);
}

}  // namespace

int main() {
    all<float>();
    all<double>();
    random_words();
    for (const auto& [M, N, K] : {std::array{1l, 1l, 1l}, {7l, 33l, 5l}, {1l, 70l, 600l}, {65l, 31l, 1130l}})
        matmul_bfloat16(M, N, K);
    for (const auto& [M, N, K] : {std::array{1l, 1l, 1l}, {3l, 20l, 31l}, {17l, 37l, 300l}})
        for (const bool panels : {false, true}) {
            quantized(WeightFormat::int8, panels, M, N, K);
            using enum WeightFormat;
            for (const auto format : {int4, int4_zero, q8_0, q4_0, q4_1})
                quantized(format, panels, M, N, round_up(K, 32));
        }
    std::printf("%s, %d threads: %d checks, %d failed\n", isa_name(isa()), thread_count(), checks, failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
