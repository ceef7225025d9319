// The lock of native/build: one process at a time, and none that waits for a process that is gone.
import {spawn} from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {setTimeout as sleep} from "node:timers/promises";
import test from "ava";
import {runProcess} from "../support/cli.js";

const script = new URL("../../scripts/lib/lock.js", import.meta.url).href;
const {withBuildLock} = await import(script) as {withBuildLock: <T>(body: () => Promise<T> | T, folder: string) => Promise<T>};

let folder: string;
test.beforeEach(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-test-"));
});
test.afterEach.always(() => fs.rm(folder, {recursive: true}));

/** The id of a process that is no more. */
async function endedProcess(): Promise<number> {
    const child = spawn(process.execPath, ["--eval", "0"]);
    await new Promise((resolve) => child.on("close", resolve));
    return child.pid!;
}

const leftBehind: Record<string, () => Promise<string> | string> = {
    "an empty lock": () => "",
    "a damaged lock": () => "0",
    "a lock of a process with our id": () => `${process.pid} 1`,
    "a lock of a process that is gone": async () => `${await endedProcess()} `,
    ...process.platform === "linux" ? {"a lock of a process whose id is another's now": () => `${process.ppid} 1`} : {}
};
for (const [title, content] of Object.entries(leftBehind)) {
    test.serial(`${title} is taken over`, async (t) => {
        await fs.writeFile(path.join(folder, "lock"), await content());
        const during = await withBuildLock(() => fs.readFile(path.join(folder, "lock"), "utf8"), folder);
        t.true(during.startsWith(`${process.pid} `), during);
        t.deepEqual(await fs.readdir(folder), []);
    });
}

test.serial("who comes second waits until the first one is done, or has been killed", async (t) => {
    const body = "process.stdout.write('locked'); await new Promise((resolve) => setTimeout(resolve, 1e6));";
    const events: string[] = [];
    await runProcess(process.execPath, ["--input-type=module", "--eval", `
        const {withBuildLock} = await import("${script}");
        await withBuildLock(async () => {${body}}, ${JSON.stringify(folder)});
    `], {
        onOutput(_output, child) {
            const second = withBuildLock(() => events.push("second"), folder);
            void sleep(500).then(async () => {
                events.push("first is killed");
                child.kill("SIGKILL");
                await second;
            });
        }
    });
    await withBuildLock(() => events.push("third"), folder);
    t.deepEqual(events.slice(0, 2), ["first is killed", "second"]);
});

test.serial("of many that find a lock left behind, one works at a time", async (t) => {
    await fs.writeFile(path.join(folder, "lock"), `${await endedProcess()} `);
    const results = await Promise.all(Array.from({length: 8}, () => runProcess(process.execPath, ["--input-type=module", "--eval", `
        import fs from "node:fs";
        const {withBuildLock} = await import("${script}");
        const inside = ${JSON.stringify(path.join(folder, "inside"))};
        await withBuildLock(async () => {
            fs.writeFileSync(inside, "", {flag: "wx"});
            await new Promise((resolve) => setTimeout(resolve, 20));
            fs.rmSync(inside);
        }, ${JSON.stringify(folder)});
    `])));
    for (const {code, stderr} of results)
        t.is(code, 0, stderr);
    t.deepEqual(await fs.readdir(folder), []);
});
