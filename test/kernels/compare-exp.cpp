// attn_exp() against expf(), of all floats that a score less its row's maximum can be until its exponential is 0.

#include "attn-exp.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

int main() {
    constexpr uint32_t FIRST   = 0x80000000; // -0
    constexpr uint32_t LAST    = 0xc2e00000; // -112
    constexpr int      AT_ONCE = 61;         // some are always left over

    uint32_t n_different = 0;
    for (uint32_t first = FIRST; first <= LAST; first += AT_ONCE) {
        const int n = std::min<uint32_t>(AT_ONCE, LAST - first + 1);
        float     x[AT_ONCE];
        for (int i = 0; i < n; ++i) {
            x[i] = from_bits(first + i);
        }
        attn_exp(x, n, 0.0f);
        for (int i = 0; i < n; ++i) {
            n_different += x[i] != expf(from_bits(first + i));
        }
    }
    // what is not a number stays none, what is not there gets no weight, and a maximum is taken off
    float rest[] = { NAN, -INFINITY, 3.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f,
        1.0f };
    attn_exp(rest, 16, 3.0f);
    const bool right = std::isnan(rest[0]) && rest[1] == 0.0f && rest[2] == 1.0f && rest[3] == expf(-2.0f);

    printf("of %" PRIu32 " exponentials %" PRIu32 " differ from expf's\n", LAST - FIRST + 1, n_different);
    if (!right) {
        printf("what is no number, or none in range, is not as expf's\n");
    }
    return n_different > 0 || !right;
}
