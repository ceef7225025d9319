#version 450

// Adds to a row of flash attention's result what its listed cells have more: factor * weight * V. One workgroup per row.

#include "attn_emulation.glsl"

#define THREADS 128
#define CELLS   32 // of a step; THREADS / CELLS threads compute the score of one

#define MAX_D_K 1024 // as ggml_vk_attn_emulation_supports() says

layout (local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout (binding = 6) readonly buffer LIST     { int data_list[]; };
layout (binding = 7) readonly buffer STRENGTH { float data_strength[]; };
layout (binding = 8) readonly buffer GAIN     { float data_gain[]; };
layout (binding = 9) buffer DST               { vec4 data_dst[]; };

shared vec4  sh_q[MAX_D_K / 4];
shared vec4  sh_sum[THREADS];
shared float sh_part[THREADS];
shared float sh_weight[CELLS];
shared uint  sh_cell[CELLS];

uint query, head, stream, list, n_listed, k_head, first_mask;
vec2 max_and_scale;
float slope;

vec4  sum_v = vec4(0.0); // of weight * V, for this thread's values and some of the cells
float sum   = 0.0;       // of weights

bool is_listed(uint cell) {
    uint first = 0;
    uint last  = n_listed;
    while (first < last) {
        const uint middle = (first + last) / 2;
        if (uint(data_list[list + 1 + middle]) < cell) {
            first = middle + 1;
        } else {
            last = middle;
        }
    }
    return first < n_listed && uint(data_list[list + 1 + first]) == cell;
}

// Sums up the listed cells, or all of them with the listed ones times factor.
void sum_up(bool all_cells, float factor) {
    const uint tid = gl_LocalInvocationIndex;
    const uint n   = all_cells ? p.n_kv : n_listed;

    // threads side by side take the values of a cell, the others further cells
    const uint side  = p.d_v / 4;
    const uint ahead = THREADS / side;

    sum_v = vec4(0.0);
    sum   = 0.0;
    for (uint first = 0; first < n; first += CELLS) {
        const uint i = first + tid / (THREADS / CELLS);

        float part = 0.0;
        if (i < n) {
            const uint cell = all_cells ? i : uint(data_list[list + 1 + i]);
            const uint row  = cell * p.k_nb1 + k_head * p.k_nb2 + stream * p.k_nb3;
            for (uint d = tid % (THREADS / CELLS); d < p.d_k / 4; d += THREADS / CELLS) {
                part += dot(sh_q[d], load_k(row, 4 * d));
            }
        }
        sh_part[tid] = part;
        barrier();

        if (tid < CELLS && first + tid < n) {
            float product = 0.0;
            [[unroll]] for (uint j = 0; j < THREADS / CELLS; ++j) {
                product += sh_part[tid * (THREADS / CELLS) + j];
            }
            const uint  cell = all_cells ? first + tid : uint(data_list[list + 1 + first + tid]);
            const float mask = p.mask_ne2 == 0 ? 0.0 : float(data_mask[first_mask + cell]);

            float weight = exp(min(score(product, mask, slope) - max_and_scale.x, 0.0)) * max_and_scale.y;
            if (all_cells && is_listed(cell)) {
                weight *= factor;
            }
            sh_weight[tid] = weight;
            sh_cell[tid]   = cell;
        }
        barrier();

        const uint n_cells = min(CELLS, n - first);
        if (tid < side * ahead) {
            for (uint j = tid / side; j < n_cells; j += ahead) {
                // cells that this layer masks may hold anything
                if (sh_weight[j] != 0.0) {
                    sum_v += sh_weight[j] * load_v(sh_cell[j] * p.v_nb1 + k_head * p.v_nb2 + stream * p.v_nb3, 4 * (tid % side));
                }
            }
        }
        for (uint j = 0; j < n_cells; ++j) {
            sum += sh_weight[j];
        }
        barrier();
    }
}

void main() {
    const uint tid      = gl_LocalInvocationIndex;
    const uint n_stream = gl_NumWorkGroups.z;

    query  = gl_WorkGroupID.x;
    head   = gl_WorkGroupID.y;
    stream = gl_WorkGroupID.z;

    const float extra = data_strength[stream * p.n_q + query] * data_gain[p.gain_offset + head];

    list     = ((stream * p.n_head + head) * p.n_q + query) * p.list_stride;
    n_listed = uint(data_list[list]);
    if (extra == 0.0 || n_listed == 0) {
        return;
    }

#ifdef NEEDS_INIT_IQ_SHMEM
    if (fa_type_needs_shmem(FaTypeK) || fa_type_needs_shmem(FaTypeV)) {
        init_iq_shmem(gl_WorkGroupSize);
    }
#endif

    k_head        = head / p.heads_per_k;
    max_and_scale = row_max_and_scale(query, head, stream, n_stream);
    slope         = alibi_slope(head);
    first_mask    = p.mask_ne2 == 0 ? 0 : mask_row(query, head, stream);

    for (uint d = tid; d < p.d_k / 4; d += THREADS) {
        sh_q[d] = round_query(data_q[(query * p.q_nb1 + head * p.q_nb2 + stream * p.q_nb3) / 4 + d]);
    }
    barrier();
    if (ROUNDS_TO_Q8) {
        vec4 rounded[MAX_D_K / 4 / THREADS];
        for (uint i = 0, d = tid; d < p.d_k / 4; ++i, d += THREADS) {
            float most = 0.0;
            for (uint j = 0; j < 8; ++j) {
                most = max(most, max_abs(sh_q[d / 8 * 8 + j]));
            }
            rounded[i] = round_to_q8(sh_q[d], most);
        }
        barrier();
        for (uint i = 0, d = tid; d < p.d_k / 4; ++i, d += THREADS) {
            sh_q[d] = rounded[i];
        }
        barrier();
    }

    sum_up(false, 0.0);

    // where little remains of a row that is normalized, no difference of sums would do
    const float total = p.threshold_or_normalize == 0.0 ? 1.0 : 1.0 + extra * sum;
    const bool  anew  = total < 0.5;
    if (anew) {
        sum_up(true, 1.0 + extra);
        if (HAS_SINKS) {
            sum += exp(data_sinks[head] - max_and_scale.x) * max_and_scale.y;
        }
    }

    sh_sum[tid] = sum_v;
    barrier();
    const uint side = p.d_v / 4;
    if (tid < side) {
        for (uint j = 1; j < THREADS / side; ++j) {
            sum_v += sh_sum[j * side + tid];
        }
        const uint at = ((stream * p.n_q + query) * p.n_head + head) * side + tid;

        data_dst[at] = anew ? (sum > 0.0 ? sum_v / sum : vec4(0.0)) : (data_dst[at] + extra * sum_v) / total;
    }
}
