// Through Node.js: reattend, plain and steered, against stock node-llama-cpp and against the dense form.
import {whyNoStock} from "../../scripts/lib/stock.js";
import {startEngine} from "./engines.js";
import {makeRow, takeTurns, tokensPerSecond} from "./turns.js";

export async function compareNode({model, threads, clock, sizes: {node}, progress}) {
    const leftOut = whyNoStock();
    const names = leftOut == null ? ["reattend", "stock"] : ["reattend"];

    // of each piece of work, what each contestant took
    const blocks = [
        ...node.prefill.map((tokens) => ({what: `prefill of ${tokens}`, pieces: tokens, times: {}})),
        ...node.depths.map((depth) => ({what: `decode at ${depth}`, pieces: 1, times: {}}))
    ];
    for (let index = 0; index < node.processes; index++) {
        const engines = Object.fromEntries(names.map((name) => [name, startEngine(name, {model, threads, clock})]));
        const told = (text) => progress(`${text}, processes ${index + 1} of ${node.processes}`);
        try {
            for (const [block, results] of (await measure(engines, {node, progress: told, reversed: index % 2 === 1})).entries()) {
                for (const [name, list] of Object.entries(results))
                    (blocks[block].times[name] ??= []).push(...list.flatMap(({seconds}) => seconds));
            }
        } finally {
            await Promise.all(Object.values(engines).map((engine) => engine.end()));
        }
    }
    return {
        rows: blocks.flatMap(({what, pieces, times}) => makeRows(what, Object.fromEntries(
            Object.entries(times).map(([name, list]) => [name, list.map((time) => time / pieces)])
        ))),
        leftOut
    };
}

/** One process of each kind, as where a process has its memory favours one contestant by some per cent for all of its life. */
async function measure(engines, {node, progress, reversed}) {
    const contestants = (command, tokens) => ({
        plain: () => engines.reattend.ask(command, "plain", tokens),
        steered: () => engines.reattend.ask(command, "steered", tokens),
        ...(engines.stock == null ? {} : {stock: () => engines.stock.ask(command, "plain", tokens)}),
        dense: () => engines.reattend.ask(command, "dense", tokens)
    });
    const contextSize = Math.max(...node.prefill, ...node.depths.map((depth) => depth + node.decode)) + 1;

    progress("loading the model");
    for (const engine of Object.values(engines)) {
        await engine.ask("open", 1, contextSize);
        await engine.ask("prefill", "plain", Math.min(...node.prefill)); // brings the weights in
    }

    const results = [];
    for (const [index, tokens] of node.prefill.entries()) {
        progress(`prefill of ${tokens}`);
        results.push(await takeTurns(contestants("prefill", tokens), node.prefillRounds[index], undefined, reversed));
    }
    for (const depth of node.depths) {
        progress(`filling the context with ${depth} tokens`);
        for (const engine of Object.values(engines))
            await engine.ask("fill", depth);
        progress(`decode at ${depth}`);
        results.push(await takeTurns(contestants("decode", node.decode), node.decodeRounds, undefined, reversed));
    }
    return results;
}

/** Of the seconds that each contestant took for a token. */
function makeRows(what, {plain, steered, stock, dense}) {
    return [
        makeRow({what, other: "reattend, plain", theirs: plain, steered, goal: 0.98, ...tokensPerSecond}),
        ...(stock == null ? [] : [makeRow({what, other: "stock", theirs: stock, plain, steered, ...tokensPerSecond})]),
        makeRow({what, other: "dense form", theirs: dense, steered, ...tokensPerSecond})
    ];
}
