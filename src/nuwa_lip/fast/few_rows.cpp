// Attention of few rows on the CPU: keys and values are read as they lie in memory, once for up to four rows, and
// everything is computed in float32.
//
// A row's result is the same to the bit however many rows, heads and threads there are, for every row is computed by
// the same operations in the same order; the compiler may not contract them (-ffp-contract=off), which it would do in
// one loop and not in another. Vectors are those of GCC and Clang, which turn them into what the CPU has.
//
// Legend: B batch, H heads, R rows, M keys, d width of a head.

#include <cfloat>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 16;
constexpr int TOGETHER = 4;  // rows of a pass: their sums stay in registers
constexpr float HIDDEN = -FLT_MAX;
constexpr int AHEAD = 3072;  // bytes; half or twice as many are about as good
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef float Eight __attribute__((vector_size(32)));
typedef float Four __attribute__((vector_size(16)));
struct BFloat16 { uint16_t bits; };

inline Floats load(const float* p) {
    Floats x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline Floats load(const BFloat16* p) {
    Halves half;
    std::memcpy(&half, p, sizeof half);
    const Words whole = __builtin_convertvector(half, Words) << 16;
    Floats x;
    std::memcpy(&x, &whole, sizeof x);
    return x;
}

inline void store(float* p, Floats x) { std::memcpy(p, &x, sizeof x); }

inline void store(BFloat16* p, Floats x) {  // to the nearest, of two equally near to the even one
    Words bits;
    std::memcpy(&bits, &x, sizeof bits);
    const Halves half = __builtin_convertvector((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, Halves);
    std::memcpy(p, &half, sizeof half);
}

inline float sum(Floats x) {
    Eight half[2];
    std::memcpy(half, &x, sizeof half);
    const Eight eight = half[0] + half[1];
    Four quarter[2];
    std::memcpy(quarter, &eight, sizeof quarter);
    const Four four = quarter[0] + quarter[1];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

inline Floats exponential(Floats x) {  // of what is not above 0: 2^n times a polynomial of what is left
    const Floats magic = Floats{} + 12582912.f;  // adding it rounds to a whole number
    const Floats hidden_below = Floats{} - 87.f;
    const Floats clamped = x < hidden_below ? hidden_below : x;
    const Floats scaled = clamped * 1.44269504f;
    const Floats whole = (scaled + magic) - magic;
    const Floats rest = (scaled - whole) * 0.693147181f;
    Floats y = rest * (1.f / 720) + 1.f / 120;
    y = y * rest + 1.f / 24;
    y = y * rest + 1.f / 6;
    y = y * rest + 0.5f;
    y = y * rest + 1.f;
    y = y * rest + 1.f;
    const Ints exponent = (__builtin_convertvector(whole, Ints) + 127) << 23;
    Floats power;
    std::memcpy(&power, &exponent, sizeof power);
    y *= power;
    return x < hidden_below ? Floats{} : y;
}

// Ask for memory that is read AHEAD bytes after row m of `rows` at `p`; behind the last of these come those at `next`.
template <typename T, int CHUNKS>
inline void ask(const T* p, int64_t stride, int64_t m, int64_t rows, const T* next, int64_t next_stride) {
    constexpr int BYTES = CHUNKS * LANES * sizeof(T);
    const int64_t at = m + AHEAD / BYTES;
    const T* row = at < rows ? p + at * stride : next + (at - rows) * next_stride;
    for (int byte = 0; byte < BYTES; byte += 64) __builtin_prefetch(reinterpret_cast<const char*>(row) + byte);
}

// One pass over the keys and one over the values of a head, for ROWS rows of it.
template <typename T, int CHUNKS, int ROWS>
void attend(const T* q, int64_t q_row, const T* k, int64_t k_row, const T* v, int64_t v_row, const uint8_t* visible,
            int64_t visible_row, T* y, int64_t y_row, int64_t keys, float scale, float* weights, int64_t padded,
            const T* next) {
    Floats query[ROWS][CHUNKS];
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < CHUNKS; ++c) query[r][c] = load(q + r * q_row + c * LANES) * scale;
    for (int64_t m = 0; m < keys; ++m) {
        ask<T, CHUNKS>(k, k_row, m, keys, v, v_row);
        Floats products[ROWS] = {};
        for (int c = 0; c < CHUNKS; ++c) {
            const Floats key = load(k + m * k_row + c * LANES);
            for (int r = 0; r < ROWS; ++r) products[r] += query[r][c] * key;
        }
        for (int r = 0; r < ROWS; ++r) {
            const bool hidden = visible && !visible[r * visible_row + m];
            weights[r * padded + m] = hidden ? HIDDEN : sum(products[r]);
        }
    }
    float total[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        float* row = weights + r * padded;
        for (int64_t m = keys; m < padded; ++m) row[m] = HIDDEN;
        Floats largest = load(row);
        for (int64_t m = LANES; m < padded; m += LANES) {
            const Floats next = load(row + m);
            largest = next > largest ? next : largest;
        }
        float most = largest[0];
        for (int lane = 1; lane < LANES; ++lane) most = largest[lane] > most ? largest[lane] : most;
        Floats totals = {};
        for (int64_t m = 0; m < padded; m += LANES) {
            const Floats weight = exponential(load(row + m) - most);
            store(row + m, weight);
            totals += weight;
        }
        total[r] = sum(totals);
    }
    Floats result[ROWS][CHUNKS] = {};
    for (int64_t m = 0; m < keys; ++m) {
        ask<T, CHUNKS>(v, v_row, m, keys, next, k_row);
        for (int c = 0; c < CHUNKS; ++c) {
            const Floats value = load(v + m * v_row + c * LANES);
            for (int r = 0; r < ROWS; ++r) result[r][c] += weights[r * padded + m] * value;
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < CHUNKS; ++c) store(y + r * y_row + c * LANES, result[r][c] / total[r]);
}

struct Place { int64_t batch, head, row; };  // how far apart two of each lie

template <typename T, int CHUNKS>
void attend_all(const T* q, const T* k, const T* v, const uint8_t* visible, T* y, const Place* at, int64_t batch,
                int64_t heads, int64_t rows, int64_t keys) {
    const float scale = 1.f / __builtin_sqrtf(float(CHUNKS * LANES));
    const int64_t padded = (keys + LANES - 1) / LANES * LANES;
    const int64_t passes = (rows + TOGETHER - 1) / TOGETHER;
#pragma omp parallel
    {
        std::vector<float> weights(TOGETHER * padded);
#pragma omp for schedule(static)
        for (int64_t part = 0; part < batch * heads * passes; ++part) {
            const int64_t b = part / passes / heads, h = part / passes % heads, first = part % passes * TOGETHER;
            const T* head_k = k + b * at[1].batch + h * at[1].head;
            const T* head_v = v + b * at[2].batch + h * at[2].head;
            const int64_t after = (part + 1) / passes;
            const T* next = k + after / heads * at[1].batch + after % heads * at[1].head;
            auto run = [&](auto pass) {
                pass(q + b * at[0].batch + h * at[0].head + first * at[0].row, at[0].row, head_k, at[1].row, head_v,
                     at[2].row, visible ? visible + b * at[3].batch + h * at[3].head + first * at[3].row : nullptr,
                     at[3].row, y + b * at[4].batch + h * at[4].head + first * at[4].row, at[4].row, keys, scale,
                     weights.data(), padded, next);
            };
            switch (rows - first) {
                case 1: run(attend<T, CHUNKS, 1>); break;
                case 2: run(attend<T, CHUNKS, 2>); break;
                case 3: run(attend<T, CHUNKS, 3>); break;
                default: run(attend<T, CHUNKS, TOGETHER>);
            }
        }
    }
}

template <typename T>
void attend_width(const T* q, const T* k, const T* v, const uint8_t* visible, T* y, const int64_t* numbers) {
    const Place at[5] = {{numbers[0], numbers[1], numbers[2]},
                         {numbers[3], numbers[4], numbers[5]},
                         {numbers[6], numbers[7], numbers[8]},
                         {numbers[9], numbers[10], numbers[11]},
                         {numbers[12], numbers[13], numbers[14]}};
    const int64_t* sizes = numbers + 15;
    const int64_t batch = sizes[0], heads = sizes[1], rows = sizes[2], keys = sizes[3], width = sizes[4];
    switch (width / LANES) {
        case 1: return attend_all<T, 1>(q, k, v, visible, y, at, batch, heads, rows, keys);
        case 2: return attend_all<T, 2>(q, k, v, visible, y, at, batch, heads, rows, keys);
        case 4: return attend_all<T, 4>(q, k, v, visible, y, at, batch, heads, rows, keys);
        case 8: return attend_all<T, 8>(q, k, v, visible, y, at, batch, heads, rows, keys);
    }
}

}  // namespace

extern "C" void attend_bfloat16(const BFloat16* q, const BFloat16* k, const BFloat16* v, const uint8_t* visible,
                                BFloat16* y, const int64_t* numbers) {
    attend_width(q, k, v, visible, y, numbers);
}

extern "C" void attend_float32(const float* q, const float* k, const float* v, const uint8_t* visible, float* y,
                               const int64_t* numbers) {
    attend_width(q, k, v, visible, y, numbers);
}
