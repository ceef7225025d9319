import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import test from "ava";
import {captureAttention, classOfToken, emulateAttention, loadProfile, saveProfile} from "reattend";
import {createContext} from "../support/oracleModel.js";

/*
 * The examples of the documentation run. What they use without making it is a context.
 */

const folders = ["emulation", "inspect", "profile"].map((name) => new URL(`../../src/${name}/`, import.meta.url));
const AsyncFunction = (async () => {}).constructor as
    new (...parametersAndBody: string[]) => (...values: unknown[]) => Promise<void>;

const examples: Array<{title: string, code: string}> = [];
for (const url of (await Promise.all(folders.map(filesOf))).flat()) {
    const name = path.basename(url.pathname);
    const source = await fs.readFile(url, "utf8");
    for (const [index, [, comment]] of Array.from(source.matchAll(/@example\n((?: *\* .*\n)+)/g)).entries())
        examples.push({title: `${name}, example ${index + 1}`, code: comment!.replaceAll(/^ *\* /gm, "")});
}

async function filesOf(folder: URL): Promise<URL[]> {
    return (await fs.readdir(folder)).map((name) => new URL(name, folder));
}

// what examples write goes there
const cwd = process.cwd();
const scratch = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
process.chdir(scratch);
test.after.always(async () => {
    process.chdir(cwd);
    await fs.rm(scratch, {recursive: true});
});

const available = {captureAttention, classOfToken, emulateAttention, loadProfile, saveProfile};

for (const {title, code} of examples) {
    test.serial(title, async (t) => {
        const context = await createContext();
        const logged: unknown[] = [];
        const quietConsole = {log: (...values: unknown[]) => logged.push(values.join(" "))};
        await new AsyncFunction(...Object.keys(available), "context", "console", code)(...Object.values(available), context, quietConsole);

        // "console.log(value); // 0.5" promises that 0.5 is logged
        for (const [, promised] of code.matchAll(/console\.log\(.*\); \/\/ (.*)/g))
            t.true(logged.includes(promised), `${promised} is not among ${JSON.stringify(logged)}`);
        await context.dispose();
        t.pass();
    });
}

test("there are examples", (t) => {
    t.true(examples.length >= 7);
});
