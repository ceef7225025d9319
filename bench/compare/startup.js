// From the start of a node process that imports the package to the first token of the embedded model; and `reattend --help`.
import {spawn} from "node:child_process";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {whyNoStock} from "../../scripts/lib/stock.js";
import {makeRow, milliseconds, takeTurns} from "./turns.js";

const firstToken = fileURLToPath(new URL("first-token.js", import.meta.url));
const cli = fileURLToPath(import.meta.resolve("#dist/cli/cli.js"));

export async function compareStartup({threads, sizes: {startup: {rounds}}, progress}) {
    const leftOut = whyNoStock();
    const rows = [];
    if (leftOut == null) {
        const engine = (name) => () => timeToOutput([firstToken, name, threads]);
        await takeTurns({plain: engine("reattend"), theirs: engine("stock")}, 1); // reads the files
        const {plain, theirs} = await takeTurns({plain: engine("reattend"), theirs: engine("stock")}, rounds, (round) => {
            progress(`start-up, round ${round + 1} of ${rounds}`);
        });
        rows.push(makeRow({what: "start of node to the first token", other: "stock", plain, theirs, goal: 1, ...milliseconds}));
    }

    const {plain, theirs} = await takeTurns({
        plain: () => timeToEnd([cli, "--help"]),
        theirs: () => timeToEnd(["--input-type=module", "--eval", ""])
    }, rounds, (round) => progress(`reattend --help, round ${round + 1} of ${rounds}`));
    rows.push(makeRow({what: "reattend --help", other: "node, an empty module", plain, theirs, ...milliseconds}));
    return {rows, leftOut};
}

/** In seconds; the process goes on and ends afterwards, so that the next one has the machine for itself. */
async function timeToOutput(args) {
    const start = performance.now();
    const child = spawn(process.execPath, args.map(String), {stdio: ["ignore", "pipe", "inherit"]});
    let seconds;
    child.stdout.once("data", () => {
        seconds = (performance.now() - start) / 1000;
    });
    const code = await new Promise((resolve) => child.on("close", resolve));
    if (code !== 0 || seconds == null)
        throw new Error(`${args.slice(1).join(" ")} ended with exit code ${code}`);
    return seconds;
}

async function timeToEnd(args) {
    const start = performance.now();
    const child = spawn(process.execPath, args, {stdio: "ignore"});
    await new Promise((resolve) => child.on("exit", resolve));
    return (performance.now() - start) / 1000;
}
