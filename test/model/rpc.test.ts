// Models that are computed by RPC servers: processes of `reattend serve-rpc` on this machine.
import fs from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import test from "ava";
import {captureAttention, emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import type {AttentionEmulationOptions, LlamaModel} from "reattend";
import {addonContextOf, bindingOf} from "#dist/binding.js";
import {writeFloat32Model} from "../support/float32Model.js";
import {evaluateAtOnce, evaluateInChunks} from "../support/logits.js";
import {largestDifference} from "../support/measures.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath} from "../support/oracle.js";
import {oracleModel} from "../support/oracleModel.js";
import {answerToHello, findFreePort, helloAnswer, startFakeServer, startProxy, startRpcServer} from "../support/rpcServer.js";
import {randomTokens} from "../support/tokens.js";
import {runCli} from "../support/cli.js";
import type {RpcServer} from "../support/rpcServer.js";

const tokens = randomTokens(90, 21);
const contextOptions = {contextSize: 256, batchSize: 256, threads: 1, flashAttention: true} as const;

// The oracle's model in F32: weights of 16 bits have instructions of their own on some CPUs (AMX), which llama.cpp uses here only.
let folder: string;
let modelPath: string;
let localModel: LlamaModel;
let servers: [RpcServer, RpcServer];
test.before(async () => {
    folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    modelPath = path.join(folder, "model.gguf");
    await writeFloat32Model(oracleModelPath, modelPath);
    localModel = await oracleModel.llama.loadModel({modelPath});
    servers = [await startRpcServer(), await startRpcServer()];
});
test.after.always(async () => {
    await Promise.all((servers ?? []).map((server) => server.kill()));
    await fs.rm(folder, {recursive: true});
});

/** Loads the oracle's model onto servers, and puts everything away in the end. */
async function withModel<T>(
    rpcServers: string[], gpuLayers: number | "max" | "auto", use: (model: LlamaModel) => Promise<T>
): Promise<T> {
    const llama = await getLlama({gpu: false, rpcServers, logLevel: LlamaLogLevel.error});
    try {
        return await use(await llama.loadModel({modelPath, gpuLayers}));
    } finally {
        await llama.dispose();
    }
}

/** The logits of a prompt in two batches and some tokens. */
async function evaluate(
    model: LlamaModel, emulationOptions?: AttentionEmulationOptions, flashAttention: boolean = true
): Promise<{logits: Float32Array[], kernel?: string}> {
    const context = await model.createContext({...contextOptions, flashAttention});
    const emulation = emulationOptions == null
        ? undefined
        : emulateAttention(context, emulationOptions);
    const logits = await evaluateInChunks(context.getSequence(), tokens, [66, 14]);
    const kernel = emulation?.report().kernel;
    await context.dispose();
    return {logits, kernel};
}

const emulations: Record<string, {options?: AttentionEmulationOptions, flashAttention?: boolean, kernel?: string}> = {
    "without emulation": {},
    "at strength 0": {options: {strength: 0}, kernel: "fused"},
    "fused": {options: {strength: 1}, kernel: "fused"},
    "fused, normalised, from layer 2": {options: {strength: 1, sourceLayer: 2, normalize: true, schedule: "constant"}, kernel: "fused"},
    "pattern \"all\"": {options: {strength: 1, pattern: "all"}, kernel: "fused"},
    "pattern \"random\"": {options: {strength: 1, pattern: "random"}, kernel: "fused"},
    "pattern \"first-token\"": {options: {strength: 1, pattern: "first-token"}, kernel: "fused"},
    "pattern \"random\", dense": {options: {strength: 1, pattern: "random", kernel: "dense"}, kernel: "dense"},
    "dense": {options: {strength: 1, kernel: "dense"}, kernel: "dense"},
    "dense, without flash attention": {options: {strength: 1}, flashAttention: false, kernel: "dense"}
};

const places = {
    "two servers, split by layer": {count: 2, gpuLayers: "max"},
    "one server": {count: 1, gpuLayers: "auto"},
    "the source layer here, later ones on a server": {count: 1, gpuLayers: 4}
} as const;

for (const [place, {count, gpuLayers}] of Object.entries(places)) {
    test.serial(`${place}: the same logits as here, to the bit`, async (t) => {
        const used = servers.slice(0, count);
        const before = used.map((server) => server.graphs());
        await withModel(used.map(({address}) => address), gpuLayers, async (model) => {
            t.is(model.gpuLayers, gpuLayers === 4 ? 4 : 9);

            const {logits: plain} = await evaluate(localModel);
            for (const [name, {options, flashAttention, kernel}] of Object.entries(emulations)) {
                const here = await evaluate(localModel, options, flashAttention);
                const there = await evaluate(model, options, flashAttention);
                t.deepEqual(there.logits, here.logits, name);
                t.is(there.kernel, kernel, name);
                t.is(worstNmse(here.logits, plain) > 1e-3, (options?.strength ?? 0) !== 0, `${name} has no effect`);
            }
        });
        for (const [i, server] of used.entries())
            t.true(server.graphs() - before[i]! >= 12 * Object.keys(emulations).length, `server ${i} has no layers`);
    });
}

test.serial("strengths change at every token while servers repeat their graphs", async (t) => {
    const evaluateVaried = async (model: LlamaModel) => {
        const context = await model.createContext(contextOptions);
        const emulation = emulateAttention(context, {strength: 0});
        const sequence = context.getSequence();
        const logits = await evaluateAtOnce(sequence, tokens.slice(0, 50));
        for (const [i, token] of tokens.slice(50).entries()) {
            emulation.strength = (i % 5) * 0.4 - 0.5;
            logits.push(...await evaluateAtOnce(sequence, [token]));
        }
        const {AddonAttentionEmulation} = bindingOf(model.llama);
        const reused = new AddonAttentionEmulation!(addonContextOf(context)).getReusedGraphs();
        await context.dispose();
        return {logits, reused};
    };

    const here = await evaluateVaried(localModel);
    await withModel(servers.map(({address}) => address), "max", async (model) => {
        const there = await evaluateVaried(model);
        t.deepEqual(there.logits, here.logits);
        t.true(there.reused >= 38, `${there.reused} graphs were reused`);
    });
});

test.serial("a context goes on when another on the same servers is disposed, and when both compute at once", async (t) => {
    await withModel(servers.map(({address}) => address), "max", async (model) => {
        const here = await evaluate(localModel, {strength: 1});
        const contexts = await Promise.all([model.createContext(contextOptions), model.createContext(contextOptions)]);
        const sequences = contexts.map((context) => context.getSequence());
        const logits = await Promise.all(contexts.map((context, i) => {
            emulateAttention(context, {strength: 1});
            return evaluateInChunks(sequences[i]!, tokens.slice(0, 85), [66, 14]);
        }));
        for (const result of logits)
            t.deepEqual(result, here.logits.slice(0, 85));

        await contexts[1].dispose();
        t.deepEqual(await evaluateInChunks(sequences[0]!, tokens.slice(85)), here.logits.slice(85));
    });
});

test.serial("a server whose devices lack the kernels gets the dense form, and the report says so", async (t) => {
    const proxy = await startProxy(servers[0].port);
    try {
        await withModel([proxy.address, servers[1].address], "max", async (model) => {
            const there = await evaluate(model, {strength: 1});
            t.is(there.kernel, "dense");
            t.true(worstNmse(there.logits, (await evaluate(localModel, {strength: 1})).logits) <= allowedNmse);
        });
    } finally {
        await proxy.close();
    }
});

test.serial("servers' memory counts as a GPU's, for the instance that was given them only", async (t) => {
    const llama = await getLlama({gpu: false, rpcServers: [servers[0].address], logLevel: LlamaLogLevel.error});
    t.is(llama.gpu as string, "rpc");
    t.true(llama.supportsGpuOffloading);
    t.deepEqual(await llama.getGpuDeviceNames(), [`RPC[${servers[0].address}]`]);
    t.true((await llama.getVramState()).total > 0);
    t.true(llama.maxThreads >= 1);

    t.is(oracleModel.llama.gpu, false);
    t.false(oracleModel.llama.supportsGpuOffloading);
    t.is((await oracleModel.llama.getVramState()).total, 0);
    const local = await oracleModel.llama.loadModel({modelPath, gpuLayers: "max"});
    t.is(local.gpuLayers, 0);
    await local.dispose();
    await llama.dispose();
});

test.serial("a server that is lost is an error; once it is back, a model can be loaded anew", async (t) => {
    const lost = await startRpcServer();
    const llama = await getLlama({gpu: false, rpcServers: [servers[0].address, lost.address], logLevel: LlamaLogLevel.disabled});
    const load = async () => {
        const model = await llama.loadModel({modelPath, gpuLayers: "max"});
        const context = await model.createContext(contextOptions);
        emulateAttention(context, {strength: 1});
        return context;
    };

    const context = await load();
    const sequence = context.getSequence();
    await evaluateAtOnce(sequence, tokens);
    const evaluating = (async () => {
        while (sequence.nextTokenIndex < 250)
            await evaluateAtOnce(sequence, [tokens[0]!]);
        await evaluateAtOnce(sequence, [tokens[0]!]);
    })();
    const [error] = await Promise.all([
        t.throwsAsync(evaluating),
        lost.kill()
    ]);
    t.is(error.message, `the RPC server at ${lost.address} has closed the connection`);
    await t.throwsAsync(evaluateAtOnce(sequence, [tokens[0]!]));
    await t.throwsAsync(llama.loadModel({modelPath}), {
        message: `The RPC server at ${lost.address} cannot be reached`
    });
    await context.model.dispose();
    t.is((await evaluate(localModel)).logits.length, tokens.length);

    const back = await startRpcServer(lost.port);
    const again = await load();
    t.deepEqual(
        await evaluateInChunks(again.getSequence(), tokens, [66, 14]),
        (await evaluate(localModel, {strength: 1})).logits
    );
    await llama.dispose();
    await back.kill();
});

const refusals: Record<string, {answer: Uint8Array | undefined, message: RegExp}> = {
    "a server of stock llama.cpp": {
        answer: answerToHello(7, 0, 0, 0),
        message: new RegExp(
            "^The RPC server at 127\\.0\\.0\\.1:\\d+ speaks version 7\\.0\\.0 of llama\\.cpp's protocol without attention emulation; " +
            "needed is 7\\.0 with version 1 of it, as `reattend serve-rpc` speaks it$"
        )
    },
    "a server of another version of llama.cpp": {answer: answerToHello(6, 1, 2, 0), message: /speaks version 6\.1\.2 .*; needed is 7\.0 with/},
    "a server of another version of reattend": {answer: answerToHello(7, 0, 0, 0x82), message: /speaks version 7\.0\.0 .* with version 2 of attention emulation; needed/},
    "another kind of server": {answer: Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), message: /^The RPC server at .* does not answer: it is no RPC server, /},
    "a server that is busy or hangs": {answer: undefined, message: /does not answer: .* or is busy, as it serves one client at a time$/}
};
for (const [title, {answer, message}] of Object.entries(refusals)) {
    test(`refused: ${title}`, async (t) => {
        const fake = await startFakeServer(answer);
        await t.throwsAsync(getLlama({gpu: false, rpcServers: [fake.address]}), {name: "RpcServerError", message});
        fake.close();
    });
}

test("refused: an address that cannot be reached", async (t) => {
    const address = `127.0.0.1:${await findFreePort()}`;
    await t.throwsAsync(getLlama({gpu: false, rpcServers: [address]}), {
        name: "RpcServerError", message: `The RPC server at ${address} cannot be reached`
    });
});

for (const rpcServers of [["nonsense"], ["host:99999"], ["host:0"], ["host"], [":50052"], ["[::1]:50052"], [7], "host:50052", ["a:1", "a:1"]]) {
    test(`refused: ${JSON.stringify(rpcServers)}`, async (t) => {
        await t.throwsAsync(getLlama({rpcServers: rpcServers as string[]}), {instanceOf: TypeError, message: /^rpcServers(\[\d\])? is /});
    });
}

/** What a server says to a client's HELLO; rejects where it is busy. */
async function sayHello(port: number): Promise<Buffer> {
    // command 14, 24 bytes of capabilities
    const request = Buffer.alloc(1 + 8 + 24);
    request[0] = 14;
    request.writeBigUInt64LE(24n, 1);
    return await new Promise<Buffer>((resolve, reject) => {
        const socket = net.connect(port, "127.0.0.1", () => socket.write(request));
        let received = Buffer.alloc(0);
        socket.setTimeout(20_000, () => socket.destroy(new Error("the server does not answer")));
        socket.on("error", reject).on("data", (chunk: Buffer) => {
            received = Buffer.concat([received, chunk]);
            if (received.length >= helloAnswer.size) {
                socket.destroy();
                resolve(received);
            }
        });
    });
}

test.serial("stock clients get what a stock server would say", async (t) => {
    const answer = await sayHello(servers[0].port);
    t.is(answer[helloAnswer.emulation], 0x81);
    answer[helloAnswer.emulation] = 0;
    t.deepEqual(new Uint8Array(answer), new Uint8Array(answerToHello(7, 0, 0, 0)));
});

test.serial("servers are free again where getLlama fails after it has connected to them", async (t) => {
    await t.throwsAsync(getLlama({
        gpu: false, rpcServers: [servers[0].address], logLevel: LlamaLogLevel.error,
        vramPadding() {
            throw new Error("no padding");
        }
    }), {message: "no padding"});
    await t.notThrowsAsync(sayHello(servers[0].port));
});

test.serial("serve-rpc warns, ends on Ctrl-C with 130, and says what prevents it", async (t) => {
    const server = await startRpcServer();
    const {code, stdout, stderr} = await runCli(["serve-rpc", "--port", String(server.port)]);
    t.is(code, 1);
    t.is(stdout, "");
    t.is(stderr, `reattend: cannot listen on 127.0.0.1:${server.port}: the port is in use\n`);
    t.is(await server.kill("SIGINT"), 130);

    t.is((await runCli(["serve-rpc", "--port", "99999"])).code, 2);
    const gpu = process.platform === "darwin" ? "cuda" : "metal"; // which can't be built here
    for (const {stderr} of await Promise.all([
        runCli(["serve-rpc", "--port", String(server.port), "--gpu", gpu]),
        runCli(["serve-rpc", "--port", String(server.port)], {env: {NODE_LLAMA_CPP_GPU: gpu}})
    ]))
        t.regex(stderr, new RegExp(`^reattend: No native build of reattend fits gpu: "${gpu}"; there is `));

    const port = await findFreePort();
    const served = await runCli(["serve-rpc", "--port", String(port)], {
        onOutput: (output, child) => void (output.includes("Listening") && child.kill("SIGTERM"))
    });
    t.is(served.code, 143);
    t.true(served.stdout.includes(`127.0.0.1:${port}`));
    t.regex(served.stderr, /^Warning: .*neither passwords nor encryption/);
});

test.serial("a capture sees what servers compute", async (t) => {
    const capture = async (model: LlamaModel) => {
        const context = await model.createContext(contextOptions);
        emulateAttention(context, {strength: 0.5});
        const attentionCapture = captureAttention(context, {weights: true, hiddenStates: true, logitLens: 1});
        const logits = await evaluateInChunks(context.getSequence(), tokens, [66, 14]);
        const captured = attentionCapture.read();
        await context.dispose();
        return {captured, logits};
    };
    const local = await capture(localModel);
    for (const gpuLayers of [4, "max"] as const) {
        const remote = await withModel(servers.map(({address}) => address), gpuLayers, capture);
        t.true(worstNmse(remote.logits, local.logits) <= allowedNmse);
        for (const name of local.captured.names().filter((name) => /pattern|entropy|received$/.test(name))) {
            const difference = largestDifference(Array.from(remote.captured.get(name)), Array.from(local.captured.get(name)));
            t.true(difference < 1e-5, `${name}: ${difference}`);
        }
        const lens = local.captured.logitLens!.tokens;
        const same = remote.captured.logitLens!.tokens.filter((token, i) => token === lens[i]).length;
        t.true(same > 0.99 * lens.length, `${same} of ${lens.length}`);
    }
});
