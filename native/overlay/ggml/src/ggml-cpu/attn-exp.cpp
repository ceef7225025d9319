#include "attn-exp.h"

#include <cmath>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#define ATTN_EXP_SIMD
#endif

#ifdef ATTN_EXP_SIMD

#include <immintrin.h>

#include <array>
#include <cstdint>
#include <cstring>

// As glibc and musl compute it, in 64 bits: with k and r such that x = (k + r) * ln2/N and |r| <= 1/2, exp(x) is 2^(k/N), from a table,
// times a polynomial in r, that of Arm's Optimized Routines.
static constexpr int    N_BITS  = 5;
static constexpr int    N       = 1 << N_BITS;
static constexpr double INV_LN2 = 0x1.71547652b82fep+0 * N;
static constexpr double SHIFT   = 0x1.8p+52; // added, it rounds to a whole number, which is in the low bits then
static constexpr double C0      = 0x1.c6af84b912394p-5 / N / N / N;
static constexpr double C1      = 0x1.ebfce50fac4f3p-3 / N / N;
static constexpr double C2      = 0x1.62e42ff0c52d6p-1 / N;

static constexpr float LEAST = -87.0f; // below, results are subnormal

// 2^(i/N) less the bits by which i, added where the exponent is, changes it
alignas(64) static const std::array<uint64_t, N> TABLE = [] {
    std::array<uint64_t, N> table;
    for (int i = 0; i < N; ++i) {
        const double power = (double) exp2l((long double) i / N);
        memcpy(&table[i], &power, sizeof(power));
        table[i] -= (uint64_t) i << (52 - N_BITS);
    }
    return table;
}();

#if defined(__AVX512F__)

typedef __m256  floats;
typedef __m512d doubles;

static constexpr int N_LANES = 8;

static inline floats load(const float * x) {
    return _mm256_loadu_ps(x);
}

static inline void store(float * x, floats y) {
    _mm256_storeu_ps(x, y);
}

static inline floats minus(floats x, float y) {
    return _mm256_sub_ps(x, _mm256_set1_ps(y));
}

static inline doubles to_doubles(floats x) {
    return _mm512_cvtps_pd(x);
}

static inline floats to_floats(doubles x) {
    return _mm512_cvtpd_ps(x);
}

static inline doubles all(double x) {
    return _mm512_set1_pd(x);
}

static inline doubles minus(doubles x, doubles y) {
    return _mm512_sub_pd(x, y);
}

static inline doubles times(doubles x, doubles y) {
    return _mm512_mul_pd(x, y);
}

static inline doubles times_plus(doubles x, doubles y, doubles z) {
    return _mm512_fmadd_pd(x, y, z);
}

// all from `least` on, and numbers
static inline bool reach(floats x, float least) {
    return _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_set1_ps(least), _CMP_GE_OQ)) == 0xFF;
}

// 2^(k/N), with k in the low bits
static inline doubles power(doubles shifted) {
    const __m512i k    = _mm512_castpd_si512(shifted);
    const __m512i low  = _mm512_permutex2var_epi64(_mm512_load_si512(&TABLE[0]), k, _mm512_load_si512(&TABLE[8]));
    const __m512i high = _mm512_permutex2var_epi64(_mm512_load_si512(&TABLE[16]), k, _mm512_load_si512(&TABLE[24]));
    const __m512i t    = _mm512_mask_blend_epi64(_mm512_test_epi64_mask(k, _mm512_set1_epi64(16)), low, high);
    return _mm512_castsi512_pd(_mm512_add_epi64(t, _mm512_slli_epi64(k, 52 - N_BITS)));
}

#else

typedef __m128  floats;
typedef __m256d doubles;

static constexpr int N_LANES = 4;

static inline floats load(const float * x) {
    return _mm_loadu_ps(x);
}

static inline void store(float * x, floats y) {
    _mm_storeu_ps(x, y);
}

static inline floats minus(floats x, float y) {
    return _mm_sub_ps(x, _mm_set1_ps(y));
}

static inline doubles to_doubles(floats x) {
    return _mm256_cvtps_pd(x);
}

static inline floats to_floats(doubles x) {
    return _mm256_cvtpd_ps(x);
}

static inline doubles all(double x) {
    return _mm256_set1_pd(x);
}

static inline doubles minus(doubles x, doubles y) {
    return _mm256_sub_pd(x, y);
}

static inline doubles times(doubles x, doubles y) {
    return _mm256_mul_pd(x, y);
}

static inline doubles times_plus(doubles x, doubles y, doubles z) {
    return _mm256_fmadd_pd(x, y, z);
}

static inline bool reach(floats x, float least) {
    return _mm_movemask_ps(_mm_cmpge_ps(x, _mm_set1_ps(least))) == 0xF;
}

static inline doubles power(doubles shifted) {
    const __m256i k = _mm256_castpd_si256(shifted);
    const __m256i t =
        _mm256_i64gather_epi64((const long long *) TABLE.data(), _mm256_and_si256(k, _mm256_set1_epi64x(N - 1)), 8);
    return _mm256_castsi256_pd(_mm256_add_epi64(t, _mm256_slli_epi64(k, 52 - N_BITS)));
}

#endif

static constexpr int AT_ONCE = 2 * N_LANES;

static inline floats exp_of(floats x) {
    const doubles z       = to_doubles(x);
    const doubles shifted = times_plus(z, all(INV_LN2), all(SHIFT));
    const doubles r       = times_plus(z, all(INV_LN2), minus(all(SHIFT), shifted));
    const doubles p       = times_plus(all(C0), r, all(C1));
    const doubles q       = times_plus(all(C2), r, all(1.0));
    return to_floats(times(times_plus(p, times(r, r), q), power(shifted)));
}

// false, and nothing is changed, if some are not within what the polynomial is for
static inline bool exp_some(float * x, float max) {
    const floats a = minus(load(x), max);
    const floats b = minus(load(x + N_LANES), max);
    if (!reach(a, LEAST) || !reach(b, LEAST)) {
        return false;
    }
    store(x, exp_of(a));
    store(x + N_LANES, exp_of(b));
    return true;
}

// whether this C library's expf is the one above: another one's last bits differ here and there
static bool is_expf() {
    for (int first = 0; first < 4096; first += AT_ONCE) {
        float x[AT_ONCE];
        float y[AT_ONCE];
        for (int i = 0; i < AT_ONCE; ++i) {
            x[i] = y[i] = LEAST * (first + i) / 4096;
        }
        exp_some(y, 0.0f);
        for (int i = 0; i < AT_ONCE; ++i) {
            if (y[i] != expf(x[i])) {
                return false;
            }
        }
    }
    return true;
}

#endif // ATTN_EXP_SIMD

static void exp_one_by_one(float * x, int n, float max) {
    for (int i = 0; i < n; ++i) {
        x[i] = expf(x[i] - max);
    }
}

void attn_exp(float * x, int n, float max) {
    int i = 0;
#ifdef ATTN_EXP_SIMD
    static const bool simd = is_expf();
    for (; simd && i + AT_ONCE <= n; i += AT_ONCE) {
        if (!exp_some(x + i, max)) {
            exp_one_by_one(x + i, AT_ONCE, max);
        }
    }
#endif
    exp_one_by_one(x + i, n - i, max);
}
