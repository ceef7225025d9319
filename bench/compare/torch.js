// Emulation in PyTorch, with all attention weights in memory, against reattend, steered.
import {spawnSync} from "node:child_process";
import {fileURLToPath} from "node:url";
import {Child} from "./child.js";
import {startEngine} from "./engines.js";
import {makeRow, takeTurns, tokensPerSecond} from "./turns.js";

const program = fileURLToPath(new URL("materialized_attention.py", import.meta.url));

export async function compareTorch({model, shape, threads, sizes: {torch}, progress}) {
    if (shape == null)
        return {leftOut: "only for a model of architecture llama"};

    // the first one in the path may be another than Debian's
    const python = ["python3", "/usr/bin/python3"].find((command) => spawnSync(command, ["-c", "import torch"]).status === 0);
    if (python == null)
        return {leftOut: "PyTorch is not there; install it with: apt install python3-torch libopenblas0-pthread"};

    progress("loading the models");
    const theirs = new Child(python, [
        program, "--threads", threads, ...Object.entries(shape).flatMap(([name, value]) => [`--${name}`, value])
    ].map(String));
    const ours = startEngine("reattend", {model, threads});
    const contestants = (command, tokens) => ({
        steered: () => ours.ask(command, "steered", tokens),
        theirs: () => theirs.ask(command, tokens)
    });
    try {
        await ours.ask("open", 1, torch.prefill + torch.decode + 1);
        await takeTurns(contestants("prefill", torch.prefill), 1);
        const prefill = await takeTurns(contestants("prefill", torch.prefill), torch.rounds, (round) => {
            progress(`prefill of ${torch.prefill}, round ${round + 1} of ${torch.rounds}`);
        });
        await ours.ask("fill", 0);
        const {version} = await theirs.ask("fill", 0);
        const decode = await takeTurns(contestants("decode", torch.decode), torch.rounds, (round) => {
            progress(`decode at 0, round ${round + 1} of ${torch.rounds}`);
        });

        const times = (blocks, tokens) => blocks.flatMap(({seconds}) => seconds).map((time) => time / tokens);
        const row = (what, blocks, tokens, goal) => makeRow({
            what,
            other: "PyTorch",
            steered: times(blocks.steered, tokens),
            theirs: times(blocks.theirs, tokens),
            goal,
            ...tokensPerSecond
        });
        return {
            rows: [row(`prefill of ${torch.prefill}`, prefill, torch.prefill, 2), row("decode at 0", decode, 1, 20)],
            notes: [`PyTorch: ${version}, F32 weights, all attention weights in memory; reattend has the model as it is`]
        };
    } finally {
        await Promise.all([ours.end(), theirs.end()]);
    }
}
