// Makes C++ that a CPU's compiler takes of CUDA sources: translate.js FROM TO FILE...
//
// Everything stays the same but three things that are no C++: the launch with <<< >>>, shared arrays whose size the launch gives, and
// PTX instructions. Each becomes a call of cuda-on-cpu.h. So does the export of a row's (maximum, sum), which is counted there.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";

const [from, to, ...files] = process.argv.slice(2);
for (const file of files) {
    const target = path.join(to, file);
    fs.mkdirSync(path.dirname(target), {recursive: true});
    fs.writeFileSync(target, translate(fs.readFileSync(path.join(from, file), "utf8")));
}

function translate(source) {
    return source
        .replace(/(\w+)<<<([^>]*)>>>\(/g, "cuda_on_cpu::launch($1, $2, ")
        .replace(/extern __shared__ (\w+) (\w+)\[\];/g, "$1 * $2 = ($1 *) cuda_on_cpu::dynamic_shared();")
        .replace(/\b((?:row_)?meta)(\[.*\]) = (make_float2\(.*\)|value);/g, "cuda_on_cpu::write_counted(&$1$2, $3);")
        // without a mask this divides by 0, which only traps on a CPU; the result is not used
        .replaceAll("(sequence % ne33)", "(ne33 == 0 ? 0 : sequence % ne33)")
        .replace(/\basm(?: volatile)?\(("[^"]*")([^;]*)\);/g, (_, instruction, operands) => translatePtx(instruction, operands));
}

/** `asm("…" : "=r"(a), "+r"(b) : "r"(c))` becomes `ptx("…", {&a, &b}, {c})`. */
function translatePtx(instruction, operands) {
    const [, outputs = "", inputs = ""] = operands.split(/:(?!:)/);
    return `cuda_on_cpu::ptx(${instruction}, ` +
        `{${list(outputs).map((operand) => `(uint32_t *) &(${operand})`).join(", ")}}, ` +
        `{${list(inputs).map((operand) => `(uint64_t) (${operand})`).join(", ")}});`;
}

/** The expressions of operands such as `"r"(x[0]), "l"(f(x, y))`. */
function list(operands) {
    return operands.split(/"[=+]?\w+"/).slice(1).map((operand) => operand.trim().replace(/,$/, "").replace(/^\(|\)$/g, ""));
}
