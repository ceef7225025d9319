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

static constexpr int AT_ONCE = 16;

static inline __m256 exp_half(__m256 x) {
    const __m512d z  = _mm512_cvtps_pd(x);
    const __m512d kd = _mm512_fmadd_pd(z, _mm512_set1_pd(INV_LN2), _mm512_set1_pd(SHIFT));
    const __m512i ki = _mm512_castpd_si512(kd);
    const __m512d r  = _mm512_fmsub_pd(z, _mm512_set1_pd(INV_LN2), _mm512_sub_pd(kd, _mm512_set1_pd(SHIFT)));

    const __m512i low  = _mm512_permutex2var_epi64(_mm512_load_si512(&TABLE[0]), ki, _mm512_load_si512(&TABLE[8]));
    const __m512i high = _mm512_permutex2var_epi64(_mm512_load_si512(&TABLE[16]), ki, _mm512_load_si512(&TABLE[24]));
    const __m512i t    = _mm512_mask_blend_epi64(_mm512_test_epi64_mask(ki, _mm512_set1_epi64(16)), low, high);
    const __m512d s    = _mm512_castsi512_pd(_mm512_add_epi64(t, _mm512_slli_epi64(ki, 52 - N_BITS)));

    const __m512d p = _mm512_fmadd_pd(_mm512_set1_pd(C0), r, _mm512_set1_pd(C1));
    const __m512d q = _mm512_fmadd_pd(_mm512_set1_pd(C2), r, _mm512_set1_pd(1.0));
    const __m512d y = _mm512_fmadd_pd(p, _mm512_mul_pd(r, r), q);
    return _mm512_cvtpd_ps(_mm512_mul_pd(y, s));
}

// false, and nothing is changed, if some are not within what the polynomial is for
static inline bool exp_some(float * x, float max) {
    const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x), _mm512_set1_ps(max));
    if (_mm512_cmp_ps_mask(d, _mm512_set1_ps(LEAST), _CMP_GE_OQ) != 0xFFFF) {
        return false;
    }
    _mm256_storeu_ps(x, exp_half(_mm512_castps512_ps256(d)));
    _mm256_storeu_ps(x + 8, exp_half(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(d), 1))));
    return true;
}

#else

static constexpr int AT_ONCE = 8;

static inline __m128 exp_half(__m128 x) {
    const __m256d z  = _mm256_cvtps_pd(x);
    const __m256d kd = _mm256_fmadd_pd(z, _mm256_set1_pd(INV_LN2), _mm256_set1_pd(SHIFT));
    const __m256i ki = _mm256_castpd_si256(kd);
    const __m256d r  = _mm256_fmsub_pd(z, _mm256_set1_pd(INV_LN2), _mm256_sub_pd(kd, _mm256_set1_pd(SHIFT)));

    const __m256i i = _mm256_and_si256(ki, _mm256_set1_epi64x(N - 1));
    const __m256i t = _mm256_i64gather_epi64((const long long *) TABLE.data(), i, 8);
    const __m256d s = _mm256_castsi256_pd(_mm256_add_epi64(t, _mm256_slli_epi64(ki, 52 - N_BITS)));

    const __m256d p = _mm256_fmadd_pd(_mm256_set1_pd(C0), r, _mm256_set1_pd(C1));
    const __m256d q = _mm256_fmadd_pd(_mm256_set1_pd(C2), r, _mm256_set1_pd(1.0));
    const __m256d y = _mm256_fmadd_pd(p, _mm256_mul_pd(r, r), q);
    return _mm256_cvtpd_ps(_mm256_mul_pd(y, s));
}

static inline bool exp_some(float * x, float max) {
    const __m256 d = _mm256_sub_ps(_mm256_loadu_ps(x), _mm256_set1_ps(max));
    if (_mm256_movemask_ps(_mm256_cmp_ps(d, _mm256_set1_ps(LEAST), _CMP_GE_OQ)) != 0xFF) {
        return false;
    }
    _mm_storeu_ps(x, exp_half(_mm256_castps256_ps128(d)));
    _mm_storeu_ps(x + 4, exp_half(_mm256_extractf128_ps(d, 1)));
    return true;
}

#endif

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
