#pragma once

// A case of flash attention as an operation of ggml, for whichever device's memory.

#include "attention-case.h"

#include <functional>

enum class attention_mode { plain, record, boost };

struct attention_tensors {
    const attention_case & c;

    ggml_tensor * q;
    ggml_tensor * k;
    ggml_tensor * v;
    ggml_tensor * mask;
    ggml_tensor * sinks;
    ggml_tensor * own;
    ggml_tensor * strength;
    ggml_tensor * gain;
    ggml_tensor * values = nullptr; // what the two above are parts of, in a graph's layout
    ggml_tensor * pattern;

    attention_tensors(ggml_context * ctx, const attention_case & c);

    ggml_tensor * build(ggml_context * ctx, attention_mode mode) const;

    // reference: its pattern is the one to boost by; null: what is there before the pattern is recorded must not matter
    using writer = std::function<void(ggml_tensor * tensor, const void * data, size_t n_bytes)>;
    void set(const attention_inputs & in, const attention_reference * reference, const writer & write) const;
};

// Counts and says what fails.
struct attention_checks {
    int n_passed  = 0;
    int n_failed  = 0;
    int n_skipped = 0;

    void check(bool good, const std::string & name, const char * what, double value, double limit);
    void check_pattern(const std::string & name, const attention_case & c, const attention_reference & reference,
        const int32_t * pattern, int64_t n_per_row); // rows of [1 + capacity]
};

// what the boost does, by itself
double attention_effect_nmse(
    const attention_reference & reference, const std::vector<double> & boosted, const std::vector<double> & plain);

// The same of the worst row (query, head): among all rows those of great strength hide what the others do. An output's own rounding
// is there whatever the boost does, so a thousandth of the row's square is added to what the error is divided by.
double attention_worst_effect(const attention_case & c, const attention_reference & reference,
    const std::vector<double> & boosted, const std::vector<double> & plain);
