// Through Node.js: reattend, plain and steered, against stock node-llama-cpp and against the dense form.
import {whyNoStock} from "../../scripts/lib/stock.js";
import {startEngine} from "./engines.js";
import {makeRow, takeTurns, tokensPerSecond} from "./turns.js";

export async function compareNode({model, threads, clock, sizes: {node}, progress}) {
    const leftOut = whyNoStock();
    const engines = {
        reattend: startEngine("reattend", {model, threads, clock}),
        ...(leftOut == null ? {stock: startEngine("stock", {model, threads, clock})} : {})
    };
    const contestants = (command, tokens) => ({
        plain: () => engines.reattend.ask(command, "plain", tokens),
        steered: () => engines.reattend.ask(command, "steered", tokens),
        ...(engines.stock == null ? {} : {stock: () => engines.stock.ask(command, "plain", tokens)}),
        dense: () => engines.reattend.ask(command, "dense", tokens)
    });
    const contextSize = Math.max(...node.prefill, ...node.depths.map((depth) => depth + node.decode)) + 1;

    const rows = [];
    const addRows = (what, blocks, tokens) => {
        const times = Object.fromEntries(Object.entries(blocks).map(([name, list]) => (
            [name, list.flatMap(({seconds}) => seconds).map((time) => time / tokens)]
        )));
        const {plain, steered, stock, dense} = times;
        rows.push(makeRow({what, other: "reattend, plain", theirs: plain, steered, goal: 0.98, ...tokensPerSecond}));
        if (stock != null)
            rows.push(makeRow({what, other: "stock", theirs: stock, plain, steered, ...tokensPerSecond}));
        rows.push(makeRow({what, other: "dense form", theirs: dense, steered, ...tokensPerSecond}));
    };

    try {
        progress("loading the model");
        for (const engine of Object.values(engines)) {
            await engine.ask("open", 1, contextSize);
            await engine.ask("prefill", "plain", Math.min(...node.prefill)); // brings the weights in
        }

        for (const [index, tokens] of node.prefill.entries()) {
            const rounds = node.prefillRounds[index];
            addRows(`prefill of ${tokens}`, await takeTurns(contestants("prefill", tokens), rounds, (round) => {
                progress(`prefill of ${tokens}, round ${round + 1} of ${rounds}`);
            }), tokens);
        }
        for (const depth of node.depths) {
            progress(`filling the context with ${depth} tokens`);
            for (const engine of Object.values(engines))
                await engine.ask("fill", depth);
            addRows(`decode at ${depth}`, await takeTurns(contestants("decode", node.decode), node.decodeRounds, (round) => {
                progress(`decode at ${depth}, round ${round + 1} of ${node.decodeRounds}`);
            }), 1);
        }
    } finally {
        await Promise.all(Object.values(engines).map((engine) => engine.end()));
    }
    return {rows, leftOut};
}
