#pragma once

// Loops over quantised keys and values. All results are those of ggml's own functions to the bit.

#include "attn-block.h"
#include "ggml-cpu-impl.h" // says what MSVC has, too

// Values as floats: by ggml's function, which is compiled for a processor of any age, or by one that is made for this one.
ggml_to_float_t attn_to_float(ggml_type type);

// Asks for what lies some rows after this one: a head's rows are apart, which processors don't foresee.
inline void attn_prefetch(const char * row, size_t stride, size_t size) {
#if defined(__GNUC__)
    for (size_t i = 0; i < size; i += 64) {
        __builtin_prefetch(row + 16 * stride + i); // no harm where nothing is
    }
#else
    GGML_UNUSED(row);
    GGML_UNUSED(stride);
    GGML_UNUSED(size);
#endif
}

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define ATTN_QUANTISED_KEYS

// of which type keys must be for the rest
inline bool attn_has_quantised_keys(const attn_keys & keys) {
    return keys.type == GGML_TYPE_Q8_0 || keys.type == GGML_TYPE_Q4_0;
}

// as attn_load_query and attn_multiply_keys of attn-block.h
void attn_load_quantised_query(const attn_keys & keys, const float * q, char * query);
void attn_multiply_quantised_keys(const attn_keys & keys, int n_rows, const char * const * queries, const char * k,
    const uint8_t * cells, int n_cells, float * const * scores);
#endif
