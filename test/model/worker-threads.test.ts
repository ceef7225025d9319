// Only the last lines load the addon in this thread: Node.js would unload it with the last worker that has it.
import {once} from "node:events";
import {Worker} from "node:worker_threads";
import test from "ava";

const program = new URL("../support/modelInWorker.js", import.meta.url);

async function generateInWorker(): Promise<unknown> {
    const worker = new Worker(program);
    const [tokens] = await once(worker, "message") as [unknown];
    await worker.terminate();
    return tokens;
}

test.serial("a worker that is terminated while it computes takes nothing else with it", async (t) => {
    for (const milliseconds of [0, 20, 50]) {
        const worker = new Worker(program, {workerData: "forever"});
        await once(worker, "message");
        await new Promise((resolve) => setTimeout(resolve, milliseconds));
        t.is(await worker.terminate(), 1);
    }
});

test.serial("workers one after the other, together, and this thread generate the same", async (t) => {
    const first = await generateInWorker();
    t.deepEqual(await generateInWorker(), first);
    t.deepEqual(await Promise.all([generateInWorker(), generateInWorker()]), [first, first]);

    const {generateTokens} = await import("../support/generateTokens.js");
    t.deepEqual(await generateTokens() as unknown, first);
    t.deepEqual(await generateInWorker(), first);
});
