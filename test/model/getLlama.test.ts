import process from "node:process";
import test from "ava";
import {LlamaLogLevel, NoBinaryFoundError, getLlama} from "reattend";
import type {LlamaOptions} from "reattend";
import {gpuFromEnvironment, openBest, selectBuilds} from "#dist/chooseBuild.js";
import {findBinariesFolder, findBuilds, version} from "#dist/builds.js";
import type {Build} from "#dist/builds.js";

const cpu: Build = {reattend: version, gpu: false, bindingPath: "cpu", llamaCpp: {repo: "", release: ""}, cmakeOptions: {}};
const cuda: Build = {...cpu, gpu: "cuda", bindingPath: "cuda"};

test("each call gives an instance of its own", async (t) => {
    const first = await getLlama({logLevel: LlamaLogLevel.error});
    const messages: string[] = [];
    const second = await getLlama({logLevel: LlamaLogLevel.debug, logger: (_, message) => messages.push(message)});
    t.not(first, second);
    t.is(first.logLevel, LlamaLogLevel.error);
    t.is(second.logLevel, LlamaLogLevel.debug);
    t.is(first.buildType, "localBuild");
    t.deepEqual({...first.llamaCppRelease}, {repo: "ggml-org/llama.cpp", release: "v0.5.0"});

    await first.dispose();
    t.true(first.disposed);
    t.false(second.disposed);
    await second.dispose();
});

test("\"lastBuild\" means the same build", async (t) => {
    const llama = await getLlama("lastBuild", {logLevel: LlamaLogLevel.error});
    t.is(llama.buildType, "localBuild");
    await llama.dispose();
});

test("what are no options is refused", async (t) => {
    for (const options of ["last", 7, null])
        await t.throwsAsync(getLlama(options as unknown as "lastBuild"), {instanceOf: TypeError, message: /^The options are .+; allowed are/});
});

test("dryRun gives a disposed instance", async (t) => {
    t.true((await getLlama({dryRun: true})).disposed);
});

test("threads default to physical cores, and can be chosen", async (t) => {
    const byDefault = await getLlama({gpu: false});
    t.true(byDefault.maxThreads >= 1 && byDefault.maxThreads <= byDefault.cpuMathCores);
    const chosen = await getLlama({gpu: false, maxThreads: 3});
    t.is(chosen.maxThreads, 3);
    const unlimited = await getLlama({gpu: false, maxThreads: 0});
    t.is(unlimited.maxThreads, 0);
    await Promise.all([byDefault, chosen, unlimited].map((llama) => llama.dispose()));
});

test("gpu chooses among the builds", (t) => {
    t.deepEqual(selectBuilds("auto", [cuda, cpu]), [cuda, cpu]);
    t.deepEqual(selectBuilds("cuda", [cuda, cpu]), [cuda]);
    t.deepEqual(selectBuilds(false, [cuda, cpu]), [cpu]);
    t.deepEqual(selectBuilds({type: "auto", exclude: ["cuda"]}, [cuda, cpu]), [cpu]);
});

test("all builds that there are can be loaded by one process", async (t) => {
    for (const {gpu} of findBuilds()) {
        const llama = await getLlama({gpu, logLevel: LlamaLogLevel.disabled});
        t.is(llama.gpu, gpu);
        await llama.dispose();
    }
});

test("without a build that fits, the error says what was asked for and what there is", (t) => {
    const notBuilt = t.throws(() => selectBuilds("auto", []), {instanceOf: NoBinaryFoundError, message: /is not built for .*`npx reattend build`/});
    t.true(notBuilt.message.includes(findBinariesFolder()), notBuilt.message);
    t.throws(() => selectBuilds("vulkan", [cuda, cpu]), {
        instanceOf: NoBinaryFoundError,
        message: /gpu: "vulkan"; there is "cuda", false \(CPU only\).*npx reattend build/
    });
});

/** What is opened of builds with these devices; an error is what a build throws. */
async function openOf(builds: readonly Build[], devices: Partial<Record<string, number | Error>>) {
    const closed: string[] = [];
    const opened = await openBest(builds, ({gpu, bindingPath}) => {
        const found = devices[bindingPath] ?? 0;
        if (found instanceof Error)
            throw found;
        return {value: bindingPath, isUsable: gpu === false || found > 0, close: () => void closed.push(bindingPath)};
    });
    return {opened, closed};
}

test("a GPU build without a device, or that does not load, gives way to the next", async (t) => {
    t.deepEqual(await openOf([cuda, cpu], {cuda: 1}), {opened: "cuda", closed: []});
    t.deepEqual(await openOf([cuda, cpu], {cuda: 0}), {opened: "cpu", closed: ["cuda"]});
    t.deepEqual(await openOf([cuda, cpu], {cuda: new Error("no driver")}), {opened: "cpu", closed: []});
    t.deepEqual(await openOf([cuda], {cuda: 0}), {opened: "cuda", closed: []}); // it was asked for
});

test("where no build opens, the error gives each one's reason, its file and the command", async (t) => {
    const noDriver = Object.assign(new Error("no driver"), {code: "ERR_DLOPEN_FAILED"});
    const one = await t.throwsAsync(openOf([cuda], {cuda: noDriver}), {
        instanceOf: NoBinaryFoundError,
        message: "reattend's native build does not load: no driver (cuda). Build it anew with `npx reattend build --gpu cuda`."
    });
    t.is(one.cause, noDriver);

    const damaged = new Error("damaged");
    const three = await t.throwsAsync(openOf([cuda, {...cuda, gpu: "vulkan", bindingPath: "vulkan"}, cpu], {cuda: noDriver, cpu: damaged}), {
        instanceOf: NoBinaryFoundError,
        message: /: no driver \(cuda\); it finds no device \(vulkan\); damaged \(cpu\)\. .*--gpu cuda` or .*--gpu vulkan` or .*--gpu false`/
    });
    t.deepEqual((three.cause as AggregateError).errors, [noDriver, damaged]);

    await t.throwsAsync(openOf([cpu], {cpu: damaged}), {is: damaged}); // it loads, but an option's function throws
});

test("a build of another version is refused, also where another one could take its place", async (t) => {
    await t.throwsAsync(openOf([{...cuda, reattend: "0.0.9"}, cpu], {}), {
        instanceOf: NoBinaryFoundError,
        message: `The native build in . was built for reattend 0.0.9, this is ${version}: run \`npx reattend build --gpu cuda\`, or remove that folder.`
    });
    await t.throwsAsync(openOf([{...cpu, reattend: undefined, portable: true}], {}), {
        message: /was built for an earlier version of reattend, this is .* --gpu false --portable`/
    });
});

test.serial("NODE_LLAMA_CPP_GPU counts where no GPU is chosen", async (t) => {
    t.teardown(() => {
        delete process.env.NODE_LLAMA_CPP_GPU;
    });
    for (const [value, gpu] of [["", "auto"], ["auto", "auto"], ["vulkan", "vulkan"], ["off", false], ["false", false]] as const) {
        process.env.NODE_LLAMA_CPP_GPU = value;
        t.is(gpuFromEnvironment(), gpu);
    }
    process.env.NODE_LLAMA_CPP_GPU = "opencl";
    await t.throwsAsync(getLlama(), {message: 'NODE_LLAMA_CPP_GPU is "opencl"; allowed are auto, metal, cuda, vulkan and false'});
    await t.notThrowsAsync(async () => (await getLlama({gpu: false})).dispose());
});

test.serial("a log level that there is none of in the environment is refused", async (t) => {
    process.env.NODE_LLAMA_CPP_LOG_LEVEL = "loud";
    t.teardown(() => {
        delete process.env.NODE_LLAMA_CPP_LOG_LEVEL;
    });
    await t.throwsAsync(getLlama({gpu: false}), {message: /^NODE_LLAMA_CPP_LOG_LEVEL is "loud"; allowed are "disabled", .*"debug"$/});
});

const badOptions: Array<[options: object, message: RegExp]> = [
    [{gpu: "opencl"}, /^gpu is "opencl"; allowed are "auto", "metal", "cuda", "vulkan" and false$/],
    [{gpu: null}, /^gpu is null; allowed are "auto"/],
    [{logLevel: "loud"}, /^logLevel is "loud"; allowed are "disabled", .*"debug"$/],
    [{maxThreads: -1}, /^maxThreads is -1; allowed are whole numbers from 0/],
    [{maxThreads: 1.5}, /^maxThreads is 1.5; /],
    [{build: "forceRebuild"}, /^build is "forceRebuild", but getLlama of reattend builds nothing/],
    [{cmakeOptions: {GGML_CUDA: "1"}}, /^cmakeOptions is given, but/]
];
for (const [options, message] of badOptions) {
    test(`refused: ${JSON.stringify(options)}`, async (t) => {
        await t.throwsAsync(getLlama(options as LlamaOptions), {message});
    });
}
