#pragma once

// Cases of flash attention with emulation, and what they must give: shared by all tests of kernels, on whichever device or stand-in
// for one they run. Inputs are plain arrays, so that a test needs nothing of ggml's graphs.

#include "ggml.h"

#include <cstdint>
#include <string>
#include <vector>

struct attention_case {
    std::string name;

    ggml_type type_k = GGML_TYPE_F16;
    ggml_type type_v = GGML_TYPE_F16;

    int64_t d_k       = 64;
    int64_t d_v       = 64;
    int64_t n_head    = 6;
    int64_t n_head_kv = 2;
    int64_t n_q       = 1;
    int64_t n_kv      = 256;
    int64_t n_stream  = 1;

    bool    mla    = false; // V is the first d_v values of each row of K
    bool    mask   = true;
    int64_t window = 0;     // of as many cells before the query's own, those further back are masked; 0 for none
    bool    blind  = false; // every third query sees no cell at all
    bool    sinks  = false; // one is above every score, so that it moves the rows' maximum, others take half of a row
    float   logit_softcap = 0.0f;
    float   max_bias      = 0.0f; // ALiBi

    float sharpness =
        4.0f; // standard deviation of the scores: the larger, the fewer keys are above the threshold; 0: all weigh as much
    float threshold = 0.01f;
    bool  normalize = false;
    bool  turn_off  = false; // strength * gain is -1 everywhere: nothing remains of the listed weights
    float common    = 0.0f;  // that about all scores have in common: softmax does not show it
    bool  large     = false; // the listed weights are multiplied by 1000, and values are 2 on the average

    bool in_graph =
        false; // tensors are views, as a model's graph has them: heads side by side, gains in a part of a larger tensor
    int n_threads = 2; // of a CPU

    float scale() const;
    float slope(int64_t head) const; // ALiBi's, 1 without

    int32_t own_of(int64_t row) const; // the cell of the query's own key; rows are [n_stream][n_head][n_q]
};

std::vector<attention_case> attention_cases();

// Why a backend, by its name in ggml, may refuse a case's operation, or why its result means nothing; null: it must run and be right.
const char * attention_may_be_refused(const std::string & backend, const attention_case & c);
const char * attention_is_left_out(const std::string & backend, const attention_case & c);

// Row-major; the last index runs fastest.
struct attention_inputs {
    std::vector<float>   q;     // [n_stream][n_head][n_q][d_k]
    std::vector<uint8_t> k;     // [n_stream][n_head_kv][n_kv] rows of type_k
    std::vector<uint8_t> v;     // [n_stream][n_head_kv][n_kv] rows of type_v; empty where it is a part of K
    std::vector<float>   k_f32; // what the rows of K stand for, [n_stream][n_head_kv][n_kv][d_k]
    std::vector<float>   v_f32; // [n_stream][n_head_kv][n_kv][d_v]
    std::vector<uint16_t>
        mask; // F16 [n_stream][n_q][n_kv]: 0 or a distance below 0 where visible, else -INFINITY; empty without
    std::vector<float>   sinks;    // [n_head], empty without
    std::vector<int32_t> own;      // [n_stream][n_q]: the cell of the query's own key
    std::vector<float>   strength; // [n_stream][n_q], some of them 0, below or above 1
    std::vector<float>   gain;     // [n_head], some of them 0
};

attention_inputs make_attention_inputs(const attention_case & c);

// In 64 bits.
struct attention_reference {
    std::vector<double> weights; // [n_stream][n_head][n_q][n_kv]
    std::vector<double> log_sum; // [n_stream][n_head][n_q]: the logarithm of the sum of exp(score), sinks included
    std::vector<std::vector<int32_t>> pattern; // [n_stream][n_head][n_q]: listed cells, ascending
    std::vector<double>               plain;   // [n_stream][n_q][n_head][d_v], ggml's layout of the result
    std::vector<double>               boosted; // the same, with the pattern above
};

attention_reference compute_attention_reference(const attention_case & c, const attention_inputs & inputs);

// The number of cells that a list has too many or too few, those left out whose weight is as near to the threshold as rounding goes:
// kernels round queries to F16, or to 8 bits where keys are quantised. Queries of 0 leave nothing to round.
int64_t count_pattern_errors(const attention_case & c, const attention_reference & reference, int64_t row,
    const int32_t * cells, int64_t n_cells);

// Limits of the NMSE of an output, of what the boost changes in it, and of what it changes in any one row.
double attention_output_limit(const attention_case & c);
double attention_effect_limit(const attention_case & c);
double attention_row_limit(const attention_case & c);

// Sum of squared differences over sum of squares.
double attention_nmse(const std::vector<double> & expected, const std::vector<double> & actual);
