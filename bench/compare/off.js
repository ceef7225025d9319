// Off is free: our llama.cpp without emulation against the same one without our patches, both without Node.js.
import {spawn} from "node:child_process";
import path from "node:path";
import {text} from "node:stream/consumers";
import {findCommand} from "../../scripts/lib/tools.js";
import {buildOurs, buildUnpatched} from "./builds.js";
import {Child} from "./child.js";
import {makeRow, takeTurns, tokensPerSecond} from "./turns.js";

const unpatched = "llama.cpp unpatched";
const goal = 0.995;

export async function compareOff({model, threads, sizes: {off}, progress}) {
    progress("building llama.cpp with our patches and without");
    const folders = {plain: await buildOurs(), theirs: await buildUnpatched()};

    const contextSize = off.prefill + off.decode + off.checkedTokens + 1;
    const children = Object.fromEntries(Object.entries(folders).map(([name, folder]) => (
        [name, new Child(path.join(folder, "run-blocks"), [model, threads, contextSize])]
    )));
    const both = (...words) => Object.fromEntries(Object.entries(children).map(([name, child]) => [name, () => child.ask(...words)]));
    try {
        progress("comparing logits");
        const checked = await takeTurns(both("logits", off.prefill, off.checkedTokens), 1);

        const prefill = await takeTurns(both("prefill", off.prefill), off.prefillRounds, (round) => {
            progress(`prefill of ${off.prefill}, patched and unpatched, round ${round + 1} of ${off.prefillRounds}`);
        });
        await takeTurns(both("fill", 0), 1);
        // the first token of a block wakes the threads
        const decode = await takeTurns(both("decode", off.decode + 1), off.decodeRounds, (round) => {
            progress(`decode at 0, patched and unpatched, round ${round + 1} of ${off.decodeRounds}`);
        });

        const seconds = (blocks, tokens) => blocks.map((block) => block.seconds.slice(-tokens));
        const prefillTimes = (name) => seconds(prefill[name], 1).flat().map((time) => time / off.prefill);
        const decodeTimes = (name) => seconds(decode[name], off.decode).flat();
        const differing = [checked, prefill, decode].some((blocks) => (
            new Set([...blocks.plain, ...blocks.theirs].map(({hash}) => hash)).size !== 1
        ));
        const row = {other: unpatched, goal, ...tokensPerSecond};
        const rows = [
            makeRow({...row, what: `off: prefill of ${off.prefill}`, plain: prefillTimes("plain"), theirs: prefillTimes("theirs")}),
            makeRow({...row, what: "off: decode at 0", plain: decodeTimes("plain"), theirs: decodeTimes("theirs")})
        ];
        return {
            rows,
            notes: [
                `off: the logits of ${off.prefill + off.checkedTokens} tokens, and of every measured block, ` +
                `${differing ? "DIFFER from those" : "are bit for bit those"} of ${unpatched}`
            ],
            failed: differing
        };
    } finally {
        await Promise.all(Object.values(children).map((child) => child.end()));
    }
}

/** The same in instructions, which no other process disturbs. */
export async function compareInstructions({makeModel, sizes: {instructions}, progress}) {
    if (instructions == null)
        return {leftOut: "takes minutes; not with --quick"};
    if (findCommand("valgrind") == null)
        return {leftOut: "valgrind is not there; install it with: apt install valgrind"};

    progress("building llama.cpp for valgrind, with our patches and without");
    const folders = [await buildOurs({valgrind: true}), await buildUnpatched({valgrind: true})];

    progress("counting instructions");
    const model = makeModel("--layers", instructions.layers, "--vocabulary", "2048");
    const work = {[`prefill of ${instructions.prefill}`]: `prefill ${instructions.prefill}`, "decode at 0": `decode ${instructions.decode}`};
    const rows = [];
    for (const [what, block] of Object.entries(work)) {
        const [plain, theirs] = await Promise.all(folders.map((folder) => countInstructions(folder, model, block)));
        rows.push(makeRow({
            what: `off: ${what}, ${instructions.layers} layers`,
            unit: "10⁶ instructions",
            other: unpatched,
            plain: [plain],
            theirs: [theirs],
            valueOf: (count) => count / 1e6,
            goal
        }));
    }
    return {rows, notes: ["instructions: of llama_decode with one thread, built for AVX2, which is what valgrind knows"]};
}

async function countInstructions(folder, model, block) {
    const child = spawn("valgrind", [
        "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=llama_decode",
        path.join(folder, "run-blocks"), model, "1", "512"
    ], {stdio: ["pipe", "ignore", "pipe"]});
    child.stdin.end(`${block}\n`);
    const output = await text(child.stderr);
    const [, count] = /Collected : (\d+)/.exec(output) ?? [];
    if (count == null)
        throw new Error(`valgrind counted nothing: ${output.trim().split("\n").at(-1)}`);
    return Number(count);
}
