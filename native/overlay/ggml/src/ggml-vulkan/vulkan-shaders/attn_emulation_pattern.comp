#version 450

// Lists the cells whose softmax weight exceeds the threshold. A workgroup computes the scores of a block of rows that share a key
// head, tile by tile as a matrix product, so that lists come out in ascending order.

#include "attn_emulation.glsl"

#define THREADS 128
#define ROWS    32 // queries and heads
#define CELLS   64 // of a tile
#define DEPTH4  8  // of a step through the head's dimensions, in fours

layout (local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout (binding = 6) readonly buffer OWN   { int data_own[]; };
layout (binding = 7) writeonly buffer LIST { int data_list[]; };

#define STRIDE (DEPTH4 + 1)

shared vec4  sh_q[ROWS * STRIDE];
shared vec4  sh_k[CELLS * STRIDE];
shared uint  sh_listed[ROWS * 2]; // bits, CELLS of them for each row
shared vec2  sh_max_and_scale[ROWS];
shared float sh_slope[ROWS];
shared uint  sh_mask_row[ROWS];
shared uint  sh_visible;

void main() {
    const uint tid      = gl_LocalInvocationIndex;
    const uint block    = gl_WorkGroupID.x / p.n_chunks;
    const uint chunk    = gl_WorkGroupID.x % p.n_chunks;
    const uint k_head   = gl_WorkGroupID.y;
    const uint stream   = gl_WorkGroupID.z;
    const uint n_stream = gl_NumWorkGroups.z;

#ifdef NEEDS_INIT_IQ_SHMEM
    if (fa_type_needs_shmem(FaTypeK)) {
        init_iq_shmem(gl_WorkGroupSize);
    }
#endif

    // row = query * heads_per_k + head
    const uint n_rows    = p.n_q * p.heads_per_k;
    const uint first_row = block * ROWS;
    const uint n_tiles   = (p.n_kv + CELLS - 1) / CELLS;
    const uint per_chunk = (n_tiles + p.n_chunks - 1) / p.n_chunks;
    const uint tile_end  = min((chunk + 1) * per_chunk, n_tiles);

    // the thread that writes the list of a row
    const bool writes    = tid < ROWS && first_row + tid < n_rows;
    uint       own       = 0;
    uint       list      = 0;
    uint       n_listed  = 0;

    if (tid < ROWS) {
        const uint row   = min(first_row + tid, n_rows - 1);
        const uint query = row / p.heads_per_k;
        const uint head  = k_head * p.heads_per_k + row % p.heads_per_k;

        sh_max_and_scale[tid] = row_max_and_scale(query, head, stream, n_stream);
        sh_slope[tid]         = alibi_slope(head);
        sh_mask_row[tid]      = p.mask_ne2 == 0 ? 0 : mask_row(query, head, stream);

        own  = uint(data_own[stream * p.n_q + query]);
        list = p.list_offset + (((stream * p.n_head + head) * p.n_q + query) * p.n_chunks + chunk) * p.list_stride;
    }

    // a thread computes 4 rows of 4 cells, CELLS / 4 = 16 threads side by side
    const uint row0  = (tid / 16) * 4;
    const uint cell0 = tid % 16;

    for (uint tile = chunk * per_chunk; tile < tile_end; ++tile) {
        const uint first_cell = tile * CELLS;

        barrier();
        if (tid == 0) {
            sh_visible = 0;
        }
        if (tid < ROWS * 2) {
            sh_listed[tid] = 0;
        }
        barrier();

        float mask[4][4];
        bool  visible = false;
        [[unroll]] for (uint r = 0; r < 4; ++r) {
            [[unroll]] for (uint c = 0; c < 4; ++c) {
                const uint cell   = first_cell + cell0 + 16 * c;
                const bool inside = cell < p.n_kv && first_row + row0 + r < n_rows;

                mask[r][c] = !inside ? -1.0 / 0.0 : p.mask_ne2 == 0 ? 0.0 : float(data_mask[sh_mask_row[row0 + r] + cell]);
                visible    = visible || mask[r][c] > -1e30;
            }
        }
        if (visible) {
            sh_visible = 1;
        }
        barrier();
        if (sh_visible == 0) {
            continue;
        }

        float product[4][4];
        [[unroll]] for (uint r = 0; r < 4; ++r) {
            [[unroll]] for (uint c = 0; c < 4; ++c) {
                product[r][c] = 0.0;
            }
        }
        for (uint d0 = 0; d0 < p.d_k / 4; d0 += DEPTH4) {
            barrier();
            for (uint i = tid; i < ROWS * DEPTH4; i += THREADS) {
                const uint row = first_row + i / DEPTH4;
                const uint d   = d0 + i % DEPTH4;
                vec4       q   = vec4(0.0);
                if (row < n_rows && d < p.d_k / 4) {
                    const uint query = row / p.heads_per_k;
                    const uint head  = k_head * p.heads_per_k + row % p.heads_per_k;

                    q = round_query(data_q[(query * p.q_nb1 + head * p.q_nb2 + stream * p.q_nb3) / 4 + d]);
                }
                sh_q[(i / DEPTH4) * STRIDE + i % DEPTH4] = q;
            }
            for (uint i = tid; i < CELLS * DEPTH4; i += THREADS) {
                const uint cell = first_cell + i / DEPTH4;
                const uint d    = d0 + i % DEPTH4;
                vec4       k    = vec4(0.0);
                if (cell < p.n_kv && d < p.d_k / 4) {
                    k = load_k(cell * p.k_nb1 + k_head * p.k_nb2 + stream * p.k_nb3, 4 * d);
                }
                sh_k[(i / DEPTH4) * STRIDE + i % DEPTH4] = k;
            }
            barrier();
            if (ROUNDS_TO_Q8) { // a step has a block of each row
                vec4 rounded[ROWS * DEPTH4 / THREADS];
                [[unroll]] for (uint n = 0; n < ROWS * DEPTH4 / THREADS; ++n) {
                    const uint row  = (tid + n * THREADS) / DEPTH4 * STRIDE;
                    float      most = 0.0;
                    [[unroll]] for (uint j = 0; j < DEPTH4; ++j) {
                        most = max(most, max_abs(sh_q[row + j]));
                    }
                    rounded[n] = round_to_q8(sh_q[row + tid % DEPTH4], most);
                }
                barrier();
                [[unroll]] for (uint n = 0; n < ROWS * DEPTH4 / THREADS; ++n) {
                    sh_q[(tid + n * THREADS) / DEPTH4 * STRIDE + tid % DEPTH4] = rounded[n];
                }
                barrier();
            }

            [[unroll]] for (uint d = 0; d < DEPTH4; ++d) {
                vec4 k[4];
                [[unroll]] for (uint c = 0; c < 4; ++c) {
                    k[c] = sh_k[(cell0 + 16 * c) * STRIDE + d];
                }
                [[unroll]] for (uint r = 0; r < 4; ++r) {
                    const vec4 q = sh_q[(row0 + r) * STRIDE + d];
                    [[unroll]] for (uint c = 0; c < 4; ++c) {
                        product[r][c] += dot(q, k[c]);
                    }
                }
            }
        }

        [[unroll]] for (uint r = 0; r < 4; ++r) {
            const vec2 max_and_scale = sh_max_and_scale[row0 + r];
            [[unroll]] for (uint c = 0; c < 4; ++c) {
                const uint  cell = cell0 + 16 * c;
                const float s    = score(product[r][c], mask[r][c], sh_slope[row0 + r]);
                if (mask[r][c] > -1e30 && exp(s - max_and_scale.x) * max_and_scale.y > p.threshold_or_normalize) {
                    atomicOr(sh_listed[2 * (row0 + r) + cell / 32], 1u << (cell % 32));
                }
            }
        }
        barrier();

        if (writes) {
            [[unroll]] for (uint i = 0; i < 2; ++i) {
                uint listed = sh_listed[2 * tid + i];
                while (listed != 0 && n_listed + 1 < p.list_stride) {
                    const uint cell = first_cell + 32 * i + findLSB(listed);
                    if (cell != own) {
                        n_listed++;
                        data_list[list + n_listed] = int(cell);
                    }
                    listed &= listed - 1;
                }
            }
        }
    }

    if (writes) {
        data_list[list] = int(n_listed);
    }
}
