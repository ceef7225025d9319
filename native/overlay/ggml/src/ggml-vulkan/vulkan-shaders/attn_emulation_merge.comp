#version 450

// Puts the lists of a row's chunks one behind the other.

#define THREADS 32

layout (local_size_x = THREADS, local_size_y = 1, local_size_z = 1) in;

layout (push_constant) uniform parameter {
    uint n_chunks;
    uint list_stride;
    uint list_offset; // of the chunks' lists
} p;

layout (binding = 0) readonly buffer CHUNKS { int data_chunks[]; };
layout (binding = 1) writeonly buffer LIST  { int data_list[]; };

void main() {
    // (query, head, stream), as the pattern is laid out
    const uint row  = (gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y) * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    const uint list = row * p.list_stride;

    uint n_listed = 0;
    for (uint chunk = 0; chunk < p.n_chunks; ++chunk) {
        const uint from = p.list_offset + (row * p.n_chunks + chunk) * p.list_stride;
        const uint n    = min(uint(data_chunks[from]), p.list_stride - 1 - n_listed);
        for (uint i = gl_LocalInvocationIndex; i < n; i += THREADS) {
            data_list[list + 1 + n_listed + i] = data_chunks[from + 1 + i];
        }
        n_listed += n;
    }
    if (gl_LocalInvocationIndex == 0) {
        data_list[list] = int(n_listed);
    }
}
