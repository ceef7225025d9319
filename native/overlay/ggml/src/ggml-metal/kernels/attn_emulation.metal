#include "common.h"
#include "dequantize.h"

// Early-layer attention pattern emulation, after flash attention has written its rows and their log-sum-exp: see
// ggml-attn-emulation.h for what is computed, ggml-metal-attn-emulation.cpp for the host's side.
//
// Queries are rounded to q4_t, and quantised keys to F16, as flash attention does.

// the host's side has the same: padded at the end only, each field is where it is there
static_assert(sizeof(ggml_metal_kargs_attn_emulation) == 15 * 8 + 19 * 4 + 4, "padding");

// what a query sees of a cell: false if nothing
static inline bool attn_emulation_bias(constant ggml_metal_kargs_attn_emulation & args, device const char * mask,
    int cell, float slope, thread float & bias) {
    bias = 0.0f;
    if (!args.has_mask) {
        return true;
    }
    const float value = ((const device half *) mask)[cell];
    bias              = slope * value;
    return value > -MAXHALF;
}

static inline device const char * attn_emulation_mask(
    constant ggml_metal_kargs_attn_emulation & args, device const char * mask, int iq1, int iq2, int iq3) {
    return mask + iq1 * args.nb31 + (iq2 % args.ne32) * args.nb32 + (iq3 % args.ne33) * args.nb33;
}

// ALiBi's; 1 without
static inline float attn_emulation_slope(constant ggml_metal_kargs_attn_emulation & args, int head) {
    const float base     = head < args.n_head_log2 ? args.m0 : args.m1;
    const int   exponent = head < args.n_head_log2 ? head + 1 : 2 * (head - args.n_head_log2) + 1;
    return pow(base, (float) exponent);
}

static inline float attn_emulation_score(constant ggml_metal_kargs_attn_emulation & args, float product, float bias) {
    float s = product * args.scale;
    if (args.logit_softcap != 0.0f) {
        s = args.logit_softcap * precise::tanh(s);
    }
    return s + bias;
}

// A threadgroup lists the cells of Q queries of a head. Each thread takes one cell of a chunk, for all of the queries.
template <typename q4_t, typename k4_t, typename kd4_t, short nl,
    void (*deq_t4)(const device kd4_t *, short, thread k4_t &), short Q>
kernel void kernel_attn_emulation_record(constant ggml_metal_kargs_attn_emulation & args, device const char * q,
    device const char * k, device const char * mask, device const float * lse, device const int * own_cells,
    device char * pattern, threadgroup char * shmem [[threadgroup(0)]], uint3 tgpig [[threadgroup_position_in_grid]],
    ushort tiitg [[thread_index_in_threadgroup]], ushort tiisg [[thread_index_in_simdgroup]],
    ushort sgitg [[simdgroup_index_in_threadgroup]], ushort3 ntg [[threads_per_threadgroup]]) {
    static_assert(Q <= 4, "a byte of a count for each");

    const int iq1 = tgpig[0] * Q;
    const int iq2 = tgpig[1];
    const int iq3 = tgpig[2];

    const short dk4 = args.ne00 / 4;
    const short nsg = ntg.x / N_SIMDWIDTH;

    threadgroup q4_t * sq4    = (threadgroup q4_t *) shmem;           // [Q][dk4]
    threadgroup uint * counts = (threadgroup uint *) (sq4 + Q * dk4); // [2][nsg]

    for (short i = tiitg; i < Q * dk4; i += ntg.x) {
        const short           qq = i / dk4;
        const device float4 * q4 =
            (const device float4 *) (q + (iq1 + qq) * args.nb01 + iq2 * args.nb02 + iq3 * args.nb03);
        sq4[i] = iq1 + qq < args.ne01 ? (q4_t) q4[i % dk4] : (q4_t) 0.0f;
    }

    const float slope = attn_emulation_slope(args, iq2);
    k += (iq2 / args.r2) * args.nb12 + (iq3 / args.r3) * args.nb13;

    float bound[Q]; // of the scores that are listed
    int   own[Q];
    int   total[Q];
    FOR_UNROLL(short qq = 0; qq < Q; ++qq) {
        const bool there = iq1 + qq < args.ne01;
        bound[qq]        = there ? lse[(iq3 * args.ne01 + iq1 + qq) * args.ne02 + iq2] + args.log_threshold : FLT_MAX;
        own[qq]          = there ? own_cells[iq3 * args.ne01 + iq1 + qq] : -1;
        total[qq]        = 0;
    }

    threadgroup_barrier(mem_flags::mem_threadgroup);

    for (int ic = 0; ic < args.ne11; ic += ntg.x) {
        const int cell = ic + tiitg;

        bool  visible[Q];
        float bias[Q];
        bool  any = false;
        FOR_UNROLL(short qq = 0; qq < Q; ++qq) {
            visible[qq] = cell < args.ne11 && iq1 + qq < args.ne01 &&
                attn_emulation_bias(args, attn_emulation_mask(args, mask, iq1 + qq, iq2, iq3), cell, slope, bias[qq]);
            any |= visible[qq];
        }

        uint listed = 0; // a byte for each query: 1 if the cell is
        if (any) {
            float product[Q];
            FOR_UNROLL(short qq = 0; qq < Q; ++qq) {
                product[qq] = 0.0f;
            }
            const device kd4_t * pk = (const device kd4_t *) (k + cell * args.nb11);
            for (short i = 0; i < dk4; ++i) {
                k4_t k4;
                deq_t4(pk + i / nl, i % nl, k4);
                FOR_UNROLL(short qq = 0; qq < Q; ++qq) {
                    product[qq] += dot((float4) k4, (float4) sq4[qq * dk4 + i]);
                }
            }
            FOR_UNROLL(short qq = 0; qq < Q; ++qq) {
                if (visible[qq] && cell != own[qq] && attn_emulation_score(args, product[qq], bias[qq]) > bound[qq]) {
                    listed |= 1u << (8 * qq);
                }
            }
        }

        // in order: after the cells of the chunks, the simdgroups and the threads before
        const uint before = simd_prefix_exclusive_sum(listed);
        const uint count  = simd_sum(listed);

        threadgroup uint * chunk_counts = counts + (ic / ntg.x % 2) * nsg;
        if (tiisg == 0) {
            chunk_counts[sgitg] = count;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        uint found = 0;
        for (short sg = 0; sg < nsg; ++sg) {
            found |= chunk_counts[sg];
        }
        if (found == 0) {
            continue;
        }
        FOR_UNROLL(short qq = 0; qq < Q; ++qq) {
            int place = total[qq] + ((before >> (8 * qq)) & 0xff);
            for (short sg = 0; sg < nsg; ++sg) {
                const int n = (chunk_counts[sg] >> (8 * qq)) & 0xff;
                place += sg < sgitg ? n : 0;
                total[qq] += n;
            }
            if (((listed >> (8 * qq)) & 1) != 0 && place < args.capacity) {
                ((device int *) (pattern + (iq1 + qq) * args.nb51 + iq2 * args.nb52 + iq3 * args.nb53))[1 + place] =
                    cell;
            }
        }
    }

    if (tiitg == 0) {
        for (short qq = 0; qq < Q && iq1 + qq < args.ne01; ++qq) {
            *(device int *) (pattern + (iq1 + qq) * args.nb51 + iq2 * args.nb52 + iq3 * args.nb53) =
                min(total[qq], args.capacity);
        }
    }
}

static inline bool attn_emulation_is_listed(device const int * list, int cell) {
    int first = 1;
    int last  = 1 + list[0];
    while (first < last) {
        const int middle = (first + last) / 2;
        if (list[middle] < cell) {
            first = middle + 1;
        } else {
            last = middle;
        }
    }
    return first <= list[0] && list[first] == cell;
}

// A simdgroup adds to a row what its listed weights gain: first a thread takes a cell, for its weight, then some of the
// values of all cells. Where little remains of a row that is normalized, a difference would be too coarse: the row is
// computed anew, from all cells.
template <typename q4_t, typename k4_t, typename kd4_t, short nl,
    void (*deq_t4)(const device kd4_t *, short, thread k4_t &)>
kernel void kernel_attn_emulation_boost(constant ggml_metal_kargs_attn_emulation & args, device const char * q,
    device const char * k, device const char * v, device const char * mask, device const float * lse,
    device const float * strength, device const float * gain, device const char * pattern, device float * dst,
    device const float * sinks, uint3 tgpig [[threadgroup_position_in_grid]],
    ushort tiisg [[thread_index_in_simdgroup]]) {
    constexpr short NW = N_SIMDWIDTH;

    const int iq1 = tgpig[0];
    const int iq2 = tgpig[1];
    const int iq3 = tgpig[2];

    const float        g        = strength[iq3 * args.ne01 + iq1] * gain[iq2];
    device const int * list     = (device const int *) (pattern + iq1 * args.nb51 + iq2 * args.nb52 + iq3 * args.nb53);
    const int          n_listed = list[0];
    if (g == 0.0f || n_listed == 0) {
        return;
    }

    const short dk4 = args.ne00 / 4;
    const short dv4 = args.ne20 / 4;
    const int   row = (iq3 * args.ne01 + iq1) * args.ne02 + iq2;

    q += iq1 * args.nb01 + iq2 * args.nb02 + iq3 * args.nb03;
    k += (iq2 / args.r2) * args.nb12 + (iq3 / args.r3) * args.nb13;
    v += (iq2 / args.r2) * args.nb22 + (iq3 / args.r3) * args.nb23;
    mask = attn_emulation_mask(args, mask, iq1, iq2, iq3);

    const float slope = attn_emulation_slope(args, iq2);

    float  sum   = 0.0f;
    float  scale = 1.0f;
    float4 boost[OP_ATTN_EMULATION_MAX_DV / (4 * NW)];
    bool   anew = false;
    while (true) {
        sum = 0.0f;
        FOR_UNROLL(short ii = 0; ii < OP_ATTN_EMULATION_MAX_DV / (4 * NW); ++ii) {
            boost[ii] = 0.0f;
        }

        const int n = anew ? args.ne11 : n_listed;
        for (int i0 = 0; i0 < n; i0 += NW) {
            int   cell   = 0;
            float weight = 0.0f;
            if (i0 + tiisg < n) {
                cell = anew ? i0 + tiisg : list[1 + i0 + tiisg];

                float bias;
                if (attn_emulation_bias(args, mask, cell, slope, bias)) {
                    const device float4 * q4      = (const device float4 *) q;
                    const device kd4_t *  pk      = (const device kd4_t *) (k + cell * args.nb11);
                    float                 product = 0.0f;
                    for (short i = 0; i < dk4; ++i) {
                        k4_t k4;
                        deq_t4(pk + i / nl, i % nl, k4);
                        product += dot((float4) k4, (float4) (q4_t) q4[i]);
                    }
                    weight = exp(min(attn_emulation_score(args, product, bias) - lse[row], 0.0f));
                    if (anew && attn_emulation_is_listed(list, cell)) {
                        weight *= 1.0f + g;
                    }
                }
            }
            sum += weight;

            for (short j = 0; j < NW && i0 + j < n; ++j) {
                const float          w  = simd_shuffle(weight, j);
                const device kd4_t * pv = (const device kd4_t *) (v + simd_shuffle(cell, j) * args.nb21);
                // cells that are masked may hold anything
                if (w == 0.0f) {
                    continue;
                }
                FOR_UNROLL(short ii = 0; ii < OP_ATTN_EMULATION_MAX_DV / (4 * NW); ++ii) {
                    const short i = ii * NW + tiisg;
                    if (i < dv4) {
                        k4_t v4;
                        deq_t4(pv + i / nl, i % nl, v4);
                        boost[ii] += (float4) v4 * w;
                    }
                }
            }
        }

        if (!args.normalize) {
            break;
        }
        float total = simd_sum(sum);
        if (!anew) {
            total = 1.0f + g * total;
            if (total < 0.5f) {
                anew = true;
                continue;
            }
        } else if (args.has_sinks) {
            total += exp(sinks[iq2] - lse[row]);
        }
        scale = total > 0.0f ? 1.0f / total : 0.0f;
        break;
    }

    device float4 * dst4 = (device float4 *) dst + row * dv4;
    FOR_UNROLL(short ii = 0; ii < OP_ATTN_EMULATION_MAX_DV / (4 * NW); ++ii) {
        const short i = ii * NW + tiisg;
        if (i < dv4) {
            dst4[i] = (anew ? boost[ii] : dst4[i] + boost[ii] * g) * scale;
        }
    }
}

typedef decltype(kernel_attn_emulation_record<half4, half4, half4, 1, dequantize_f16_t4, 1>) attn_emulation_record_t;
typedef decltype(kernel_attn_emulation_boost<half4, half4, half4, 1, dequantize_f16_t4>)     attn_emulation_boost_t;

// clang-format off
template [[host_name("kernel_attn_emulation_record_f32_q1")]]  kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   float4, float4,     1, dequantize_f32_t4,  1>;
template [[host_name("kernel_attn_emulation_record_f16_q1")]]  kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  half4,      1, dequantize_f16_t4,  1>;
template [[host_name("kernel_attn_emulation_record_q4_0_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q4_0, 8, dequantize_q4_0_t4, 1>;
template [[host_name("kernel_attn_emulation_record_q4_1_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q4_1, 8, dequantize_q4_1_t4, 1>;
template [[host_name("kernel_attn_emulation_record_q5_0_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q5_0, 8, dequantize_q5_0_t4, 1>;
template [[host_name("kernel_attn_emulation_record_q5_1_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q5_1, 8, dequantize_q5_1_t4, 1>;
template [[host_name("kernel_attn_emulation_record_q8_0_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q8_0, 8, dequantize_q8_0_t4, 1>;

template [[host_name("kernel_attn_emulation_record_f32_q4")]]  kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   float4, float4,     1, dequantize_f32_t4,  4>;
template [[host_name("kernel_attn_emulation_record_f16_q4")]]  kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  half4,      1, dequantize_f16_t4,  4>;
template [[host_name("kernel_attn_emulation_record_q4_0_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q4_0, 8, dequantize_q4_0_t4, 4>;
template [[host_name("kernel_attn_emulation_record_q4_1_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q4_1, 8, dequantize_q4_1_t4, 4>;
template [[host_name("kernel_attn_emulation_record_q5_0_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q5_0, 8, dequantize_q5_0_t4, 4>;
template [[host_name("kernel_attn_emulation_record_q5_1_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q5_1, 8, dequantize_q5_1_t4, 4>;
template [[host_name("kernel_attn_emulation_record_q8_0_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   half4,  block_q8_0, 8, dequantize_q8_0_t4, 4>;

template [[host_name("kernel_attn_emulation_boost_f32")]]      kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   float4, float4,     1, dequantize_f32_t4>;
template [[host_name("kernel_attn_emulation_boost_f16")]]      kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   half4,  half4,      1, dequantize_f16_t4>;
template [[host_name("kernel_attn_emulation_boost_q4_0")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   half4,  block_q4_0, 8, dequantize_q4_0_t4>;
template [[host_name("kernel_attn_emulation_boost_q4_1")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   half4,  block_q4_1, 8, dequantize_q4_1_t4>;
template [[host_name("kernel_attn_emulation_boost_q5_0")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   half4,  block_q5_0, 8, dequantize_q5_0_t4>;
template [[host_name("kernel_attn_emulation_boost_q5_1")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   half4,  block_q5_1, 8, dequantize_q5_1_t4>;
template [[host_name("kernel_attn_emulation_boost_q8_0")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   half4,  block_q8_0, 8, dequantize_q8_0_t4>;

#if defined(GGML_METAL_HAS_BF16)
// of queries as each of the two kernels of flash attention rounds them
template [[host_name("kernel_attn_emulation_record_bf16_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   float4, bfloat4,    1, dequantize_bf16_t4, 1>;
template [[host_name("kernel_attn_emulation_record_bf16_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<half4,   float4, bfloat4,    1, dequantize_bf16_t4, 4>;
template [[host_name("kernel_attn_emulation_boost_bf16")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <half4,   float4, bfloat4,    1, dequantize_bf16_t4>;
template [[host_name("kernel_attn_emulation_record_bf16_bf16_q1")]] kernel attn_emulation_record_t kernel_attn_emulation_record<bfloat4, float4, bfloat4,    1, dequantize_bf16_t4, 1>;
template [[host_name("kernel_attn_emulation_record_bf16_bf16_q4")]] kernel attn_emulation_record_t kernel_attn_emulation_record<bfloat4, float4, bfloat4,    1, dequantize_bf16_t4, 4>;
template [[host_name("kernel_attn_emulation_boost_bf16_bf16")]]     kernel attn_emulation_boost_t  kernel_attn_emulation_boost <bfloat4, float4, bfloat4,    1, dequantize_bf16_t4>;
#endif
// clang-format on
