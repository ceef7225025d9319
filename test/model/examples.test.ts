import fs from "node:fs/promises";
import test from "ava";
import {emulateAttention} from "reattend";
import {createContext} from "../support/oracleModel.js";

/*
 * The examples of the documentation run. What they use without making it is a context.
 */

const folder = new URL("../../src/emulation/", import.meta.url);
const AsyncFunction = (async () => {}).constructor as
    new (...parametersAndBody: string[]) => (...values: unknown[]) => Promise<void>;

const examples: Array<{title: string, code: string}> = [];
for (const name of await fs.readdir(folder)) {
    const source = await fs.readFile(new URL(name, folder), "utf8");
    for (const [index, [, comment]] of Array.from(source.matchAll(/@example\n((?: *\* .*\n)+)/g)).entries())
        examples.push({title: `${name}, example ${index + 1}`, code: comment!.replaceAll(/^ *\* /gm, "")});
}

for (const {title, code} of examples) {
    test.serial(title, async (t) => {
        const context = await createContext();
        const logged: unknown[] = [];
        const quietConsole = {log: (...values: unknown[]) => logged.push(values.join(" "))};
        await new AsyncFunction("emulateAttention", "context", "console", code)(emulateAttention, context, quietConsole);

        // "console.log(value); // 0.5" promises that 0.5 is logged
        for (const [, promised] of code.matchAll(/console\.log\(.*\); \/\/ (.*)/g))
            t.true(logged.includes(promised), `${promised} is not among ${JSON.stringify(logged)}`);
        await context.dispose();
        t.pass();
    });
}

test("there are examples", (t) => {
    t.true(examples.length >= 4);
});
