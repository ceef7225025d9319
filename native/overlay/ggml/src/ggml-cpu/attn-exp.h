#pragma once

// exp(x) of many x at a time, equal to expf(x) to the bit.

// x[i] = expf(x[i] - max); x[i] <= max
void attn_exp(float * x, int n, float max);
