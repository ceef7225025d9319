// Off is free: our llama.cpp without emulation against the same one without our patches, both without Node.js.
import path from "node:path";
import {whyNoCallgrind} from "../../scripts/lib/callgrind.js";
import {buildOurs, buildUnpatched} from "./builds.js";
import {countInstructions} from "./callgrind.js";
import {Child} from "./child.js";
import {makeRow, takeTurns, tokensPerSecond} from "./turns.js";

const unpatched = "llama.cpp unpatched";
const goal = 0.995;

export async function compareOff({model, threads, clock, sizes: {off}, progress}) {
    progress("building llama.cpp with our patches and without");
    const folders = {plain: await buildOurs(), theirs: await buildUnpatched()};

    const blocks = {logits: [], prefill: [], decode: []};
    for (let pair = 0; pair < off.pairs; pair++) {
        const told = (text) => progress(`${text}, patched and unpatched, pair ${pair + 1} of ${off.pairs}`);
        for (const [name, measured] of Object.entries(await measurePair(folders, {model, threads, clock, off, progress: told})))
            blocks[name].push(measured);
    }

    const all = (name, contestant) => blocks[name].flatMap((measured) => measured[contestant]);
    const differing = Object.keys(blocks).some((name) => (
        new Set([...all(name, "plain"), ...all(name, "theirs")].map(({hash}) => hash)).size !== 1
    ));
    const times = (name, contestant, pieces, tokens) => (
        all(name, contestant).flatMap(({seconds}) => seconds.slice(-pieces)).map((time) => time / tokens)
    );
    const row = (what, name, pieces, tokens) => makeRow({
        what,
        other: unpatched,
        plain: times(name, "plain", pieces, tokens),
        theirs: times(name, "theirs", pieces, tokens),
        goal,
        ...tokensPerSecond
    });
    return {
        rows: [
            row(`off: prefill of ${off.prefill}`, "prefill", 1, off.prefill),
            row("off: decode at 0", "decode", off.decode, 1)
        ],
        notes: [
            `off: the logits of ${off.prefill + off.checkedTokens} tokens, and of every measured block, ` +
            `${differing ? "DIFFER from those" : "are bit for bit those"} of ${unpatched}; ${off.pairs} pairs of processes`
        ],
        failed: differing
    };
}

/**
 * One process of each kind. Where a process has its code and data makes it faster or slower by a per cent or two for all of its life,
 * so there must be several.
 */
async function measurePair(folders, {model, threads, clock, off, progress}) {
    const contextSize = off.prefill + off.decode + off.checkedTokens + 1;
    const children = Object.fromEntries(Object.entries(folders).map(([name, folder]) => (
        [name, new Child(path.join(folder, "run-blocks"), [model, threads, contextSize, clock])]
    )));
    const both = (...words) => Object.fromEntries(Object.entries(children).map(([name, child]) => [name, () => child.ask(...words)]));
    try {
        progress("logits");
        const logits = await takeTurns(both("logits", off.prefill, off.checkedTokens), 1);
        progress(`prefill of ${off.prefill}`);
        const prefill = await takeTurns(both("prefill", off.prefill), off.prefillRounds);
        progress("decode at 0");
        await takeTurns(both("fill", 0), 1);
        const decode = await takeTurns(both("decode", off.decode), off.decodeRounds);
        return {logits, prefill, decode};
    } finally {
        await Promise.all(Object.values(children).map((child) => child.end()));
    }
}

/** The same in instructions. */
export async function compareInstructions({makeModel, sizes: {instructions}, progress}) {
    if (instructions == null)
        return {leftOut: "takes minutes; not with --quick"};
    const reason = whyNoCallgrind();
    if (reason != null)
        return {leftOut: reason};

    progress("building llama.cpp for valgrind, with our patches and without");
    const folders = [await buildOurs({valgrind: true}), await buildUnpatched({valgrind: true})];

    progress("counting instructions");
    const model = makeModel("--layers", instructions.layers, "--vocabulary", "2048");
    const work = {[`prefill of ${instructions.prefill}`]: `prefill ${instructions.prefill}`, "decode at 0": `decode ${instructions.decode}`};
    const rows = [];
    for (const [what, block] of Object.entries(work)) {
        const [plain, theirs] = await Promise.all(folders.map((folder) => (
            countInstructions(folder, {model, counted: "llama_decode", blocks: [block]})
        )));
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
