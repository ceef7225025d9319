// Turns ggml's .metal sources into C++ for the shim beside this: what C++ can't parse is replaced, no statement of a kernel is changed.
import fs from "node:fs";
import path from "node:path";
import {UserError} from "../../../scripts/lib/main.js";
import {writeIfDifferent} from "../../../scripts/lib/files.js";

const sources = ["fa", "attn_emulation"];
const headers = ["common.h", "dequantize.h"];

// all instances of the kernels would take an hour to compile: these are what attention_cases() needs
const types = "(f32|f16|bf16|q4_0|q4_1|q5_0|q5_1|q8_0)";
const wanted = [
    "attn_emulation_.*",
    "flash_attn_ext_(pad|blk|kv_\\w+|vec_reduce)",
    `flash_attn_ext_(vec_)?${types}_dk64_dv64`,
    "flash_attn_ext_(vec_)?q8_0_dk128_dv128",
    "flash_attn_ext_f16_dk(32|40|80|96|112|128|256)_dv\\1",
    "flash_attn_ext_vec_f16_dk(32|96|128|256)_dv\\1",
    "flash_attn_ext_(vec_)?(q8_0|q4_0)_dk(96|256)_dv\\3",
    "flash_attn_ext_(vec_)?f16_dk192_dv128",
    "flash_attn_ext_(vec_)?(f16|q8_0)_dk576_dv512"
].map((name) => new RegExp(`^kernel_${name}$`));

// letters that kernel-library.h knows
const kinds = {
    threadgroup_position_in_grid: "g",
    thread_position_in_grid: "p",
    thread_index_in_simdgroup: "l",
    simdgroup_index_in_threadgroup: "s",
    thread_index_in_threadgroup: "t",
    threads_per_threadgroup: "n"
};

/** Writes a .cpp for each source, and the headers that they include. */
export function translate(metalFolder, output) {
    fs.mkdirSync(output, {recursive: true});
    for (const name of headers)
        writeIfDifferent(path.join(output, name), translateText(fs.readFileSync(path.join(metalFolder, "kernels", name), "utf8"), name));
    for (const name of sources) {
        const text = fs.readFileSync(path.join(metalFolder, "kernels", `${name}.metal`), "utf8");
        writeIfDifferent(path.join(output, `${name}.cpp`), translateText(text, `${name}.metal`));
    }

    // what runs on a device is plain C in the middle of Objective-C
    const device = fs.readFileSync(path.join(metalFolder, "ggml-metal-device.m"), "utf8");
    const [, supported] = /case GGML_OP_FLASH_ATTN_EXT:\n([\s\S]*?return has_simdgroup_mm;)/.exec(device) ?? [];
    if (supported == null)
        throw new UserError("ggml-metal-device.m no longer says for flash attention what it did");
    writeIfDifferent(path.join(output, "flash-attention-supported.inc"), supported + "\n");
}

export function translateText(text, name) {
    const parameters = readParameters(text);
    let registered = 0;
    const register = (hostName, kernel) => {
        const base = /^\w+/.exec(kernel)[0];
        if (!wanted.some((name) => name.test(hostName)) || !(base in parameters))
            return "";
        registered++;
        const call = `kernel_call<&${kernel}, ${[...parameters[base]].map((kind) => `'${kind}'`).join(", ")}>::run`;
        return `static const register_kernel registered_${registered}("${hostName}", ${call});`;
    };

    let result = text
        // loops need not be unrolled
        .replaceAll(/_Pragma\("[^"]*"\) ?/g, "")
        .replaceAll(/^ *#pragma unroll.*$/gm, "")
        // on arrays: an extension of clang's
        .replaceAll(/float (\w+)\[(\w+)\] = \{ \[0 \.\.\. \w+-1\] = ([^}]+?) \};/g, "float $1[$2]; std::fill_n($1, $2, $3);")
        // of 0 where there is no mask: any result will do, but a CPU would stop
        .replaceAll(/\b(\w+)%(args\.ne\d+)/g, "modulo($1, $2)")
        // a threadgroup runs alone, so what it shares may be static
        .replaceAll(/^( +)threadgroup +(\w+ \w+\[.+\]);/gm, "$1static $2;")
        .replaceAll(/^constant (bool|int32_t) +(\w+) +\[\[function_constant\((.+?)\)\]\];/gm,
            (_, type, constant, index) => `static ${type} ${constant};\nstatic const register_constant registered_${constant}(${index}, &${constant});`)
        .replaceAll(/^constant /gm, "static const ")
        .replaceAll(/^template \[\[host_name\("(\w+)" *\)\]\] *kernel +\w+ +(.+);$/gm, (_, hostName, kernel) => register(hostName, kernel))
        .replaceAll(/\[\[\w+(\(\d+\))?\]\]/g, "");

    // those that are no templates
    for (const kernel of text.matchAll(/(?<!>\s*)^kernel void (\w+)\(/gm)) {
        if (!isTemplate(text, kernel.index))
            result += register(kernel[1], kernel[1]) + "\n";
    }
    result = result.replaceAll(/^kernel void/gm, "static void");
    if (name.endsWith(".metal")) {
        if (registered === 0)
            throw new UserError(`no kernel was found in ${name}`);
        result = `#include "kernel-library.h"\n#define GGML_METAL_HAS_BF16\n#define __METAL_VERSION__ 400\n${result}`;
    }
    return result;
}

/** A letter for each parameter of each kernel. */
function readParameters(text) {
    const result = {};
    for (const [, kernel, list] of text.matchAll(/^kernel void (\w+)\(([^{]*?)\) \{/gm)) {
        result[kernel] = list.split(",").map((parameter) => {
            const attribute = /\[\[(\w+)/.exec(parameter)?.[1];
            if (attribute == null)
                return "b";
            if (attribute === "threadgroup")
                return "m";
            if (!(attribute in kinds))
                throw new UserError(`${kernel} has a parameter that is not known: ${attribute}`);
            return kinds[attribute];
        }).join("");
    }
    return result;
}

function isTemplate(text, index) {
    return /(>|^template[^\n]*)\s*$/.test(text.slice(0, index));
}
