// Stock node-llama-cpp and ours in one process: each on its own libraries, both right.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import * as stock from "node-llama-cpp";
import * as ours from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath, readOracle} from "../support/oracle.js";
import {testWithStock} from "../support/stock.js";

// what is mapped is read from /proc
const otherReason = process.platform === "linux"
    ? undefined
    : "not on Linux";

testWithStock("stock node-llama-cpp and reattend in one process", async (t) => {
    const options = {gpu: false, logLevel: ours.LlamaLogLevel.error, maxThreads: 2} as const;
    const loaded = [
        await stock.getLlama({...options, build: "never", skipDownload: true}),
        await ours.getLlama(options)
    ];
    t.deepEqual(loaded.map(({buildType}) => buildType), ["prebuilt", "localBuild"]);

    // both at the same time, and each twice, so that whatever they shared would show
    const models = await Promise.all(loaded.map((llama) => llama.loadModel({modelPath: oracleModelPath})));
    const errors = await Promise.all([...models, ...models].map(errorWithoutEmulation));
    errors.forEach((error) => t.true(error <= allowedNmse, `NMSE ${error}`));

    const libraries = mappedLibraries();
    const folders = (name: RegExp) => new Set(
        [...libraries].filter((file) => name.test(path.basename(file))).map((file) => path.dirname(file))
    );
    const oursOnly = folders(/-reattend\.so$|^reattend\.node$/);
    const stockOnly = folders(/^lib(llama|ggml)(?!.*-reattend)|^llama-addon\.node$/);
    t.is(oursOnly.size, 1, [...oursOnly].join());
    t.is(stockOnly.size, 1, [...stockOnly].join());
    t.notDeepEqual(oursOnly, stockOnly);

    const names = [...libraries].map((file) => path.basename(file));
    for (const name of ["reattend.node", "libllama-reattend.so", "libllama-common-reattend.so", "libggml-reattend.so",
        "libggml-base-reattend.so", "libggml-cpu-reattend.so", "llama-addon.node", "libggml-base.so", "libllama-common.so"])
        t.true(names.includes(name), `${name} is loaded`);

    for (const llama of loaded)
        await llama.dispose();
}, otherReason);

async function errorWithoutEmulation(model: ours.LlamaModel): Promise<number> {
    const {tokens, prefill_n, prefill_positions, decode_positions, cases} = await readOracle();
    const context = await model.createContext({contextSize: 256, batchSize: 256, flashAttention: true});
    const logits = await evaluateInChunks(context.getSequence(), tokens, [prefill_n]);
    await context.dispose();

    const plain = cases.find(({strength}) => strength === 0)!;
    return worstNmse(
        [...prefill_positions, ...decode_positions].map((position) => logits[position]!),
        [...plain.prefill_logits, ...plain.decode_logits]
    );
}

function mappedLibraries(): Set<string> {
    const lines = fs.readFileSync("/proc/self/maps", "utf8").split("\n");
    return new Set(lines.map((line) => line.slice(line.indexOf("/"))).filter((file) => /\.(so|node)$/.test(file)));
}
