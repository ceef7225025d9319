import process from "node:process";
import {Llama, LlamaLogLevel} from "node-llama-cpp";
import type {LastBuildOptions, LlamaOptions as NodeLlamaCppOptions} from "node-llama-cpp";
import {batchSequencesTogether} from "./batching.js";
import {createLlama, loadBinding} from "./binding.js";
import {findBuilds} from "./builds.js";
import {gpuFromEnvironment, openBest, rebuildHint, selectBuilds} from "./chooseBuild.js";
import {show} from "./emulation/show.js";
import {noteSequences} from "./inspect/liveSequences.js";
import {checkRpcServers, connectRpcServers, withRpcServers} from "./rpc.js";
import {defaultThreads} from "./threads.js";
import type {Binding} from "./binding.js";
import type {Build} from "./builds.js";
import type {GpuOption, Opened} from "./chooseBuild.js";
import type {RpcServers} from "./rpc.js";

/** node-llama-cpp's options, and reattend's own. */
export type LlamaOptions = NodeLlamaCppOptions & {
    /**
     * Other machines (or processes) that models may be spread over, as `"host:port"`: each runs `reattend serve-rpc`. Their
     * memory counts as a GPU's does, so `gpuLayers` says how many layers go there, by default as many as fit. The layers are
     * divided among the servers, in the order given, and this machine's GPUs, in proportion to free memory; `llama.gpu` is
     * `"rpc"` where there are no GPUs. Emulation works across all of them.
     *
     * A server serves one process at a time, from `getLlama` until the instance and its models are disposed. Servers of stock
     * llama.cpp are refused, since they don't know emulation. Where a server is lost, what waits for it rejects.
     *
     * **RPC has neither passwords nor encryption:** use it on networks that you trust.
     * @example
     * const llama = await getLlama({rpcServers: ["192.168.1.20:50052", "192.168.1.21:50052"]});
     * const model = await llama.loadModel({modelPath});
     */
    rpcServers?: readonly string[]
};

/**
 * `getLlama` of node-llama-cpp, on reattend's own build of llama.cpp.
 *
 * It differs in this: nothing is built or downloaded here, so options about that are refused where they would change
 * anything, and without a GPU the number of threads defaults to the physical cores that this process may use.
 * @throws {TypeError} or a RangeError, naming an option or a variable of the environment that is not allowed
 * @throws {NoBinaryFoundError} if no native build fits `gpu`, or none loads; its `cause` is why
 * @throws {RpcServerError} naming the server that can't be used
 * @example
 * const llama = await getLlama({gpu: false});
 * const model = await llama.loadModel({modelPath});
 * console.log(llama.gpu); // false
 * await llama.dispose();
 */
export function getLlama(options?: LlamaOptions): Promise<Llama>;
export function getLlama(type: "lastBuild", lastBuildOptions?: LastBuildOptions): Promise<Llama>;
export async function getLlama(
    optionsOrType: LlamaOptions | "lastBuild" = {}, lastBuildOptions: LastBuildOptions = {}
): Promise<Llama> {
    const options: LlamaOptions = optionsOrType === "lastBuild"
        ? lastBuildOptions
        : optionsOrType;
    checkOptions(options);

    return await openBest(selectBuilds(options.gpu ?? gpuFromEnvironment(), findBuilds()), (build) => open(build, options));
}

async function open(build: Build, options: LlamaOptions): Promise<Opened<Llama>> {
    const binding = loadBinding(build.bindingPath);
    const servers = await connectRpcServers(binding, options.rpcServers ?? []);
    try {
        const llama = await load(build, options, binding, servers);
        const hasGpu = binding.getGpuDeviceInfo().deviceNames.length > 0;
        if (options.maxThreads == null && !hasGpu)
            llama.maxThreads = defaultThreads(llama.cpuMathCores);
        if (options.dryRun === true)
            await llama.dispose();
        return {
            value: llama,
            isUsable: build.gpu === false || hasGpu || servers != null,
            close: () => llama.dispose()
        };
    } catch (error) {
        servers?.native.dispose();
        throw error;
    }
}

async function load(build: Build, options: LlamaOptions, binding: Binding, servers: RpcServers | undefined): Promise<Llama> {
    const llama = await createLlama({
        bindings: withRpcServers(binding, servers),
        bindingPath: build.bindingPath,
        buildType: "localBuild",
        buildMetadata: {
            buildOptions: {
                gpu: build.gpu,
                llamaCpp: build.llamaCpp,
                customCmakeOptions: build.cmakeOptions
            }
        },
        logLevel: options.logLevel ?? logLevelFromEnvironment(),
        logger: options.logger ?? Llama.defaultConsoleLogger.bind(Llama),
        maxThreads: options.maxThreads,
        vramPadding: options.vramPadding ?? defaultVramPadding,
        ramPadding: options.ramPadding ?? defaultRamPadding,
        debug: options.debug ?? debugFromEnvironment(),
        numa: options.numa ?? false,
        tempDir: false,
        skipLlamaInit: options.dryRun ?? false,
        experimentalOptions: options.experimental
    });

    llama.onDispose.createListener(() => servers?.native.dispose());
    await batchSequencesTogether(llama);
    noteSequences(llama);
    return llama;
}

function checkOptions(options: LlamaOptions): void {
    if (options === null || typeof options !== "object")
        throw new TypeError(`The options are ${show(options)}; allowed are an object and "lastBuild"`);

    const {gpu, build, cmakeOptions, logLevel, maxThreads, rpcServers} = options;

    const gpuType: unknown = typeof gpu === "object"
        ? (gpu as typeof gpu | null)?.type
        : gpu;
    if (gpu !== undefined && !["auto", "metal", "cuda", "vulkan", false].includes(gpuType as GpuOption & string))
        throw new TypeError(`gpu is ${JSON.stringify(gpu)}; allowed are "auto", "metal", "cuda", "vulkan" and false`);

    if (logLevel != null)
        checkLogLevel("logLevel", logLevel);
    else
        logLevelFromEnvironment();

    if (maxThreads != null && !(Number.isInteger(maxThreads) && maxThreads >= 0))
        throw new RangeError(`maxThreads is ${show(maxThreads)}; allowed are whole numbers from 0, which stands for no limit`);

    if (rpcServers != null)
        checkRpcServers(rpcServers);

    if (build === "forceRebuild" || Object.keys(cmakeOptions ?? {}).length > 0)
        throw new TypeError(
            `${build === "forceRebuild" ? 'build is "forceRebuild"' : "cmakeOptions is given"}, but getLlama of reattend builds nothing. ${rebuildHint}.`
        );
}

function checkLogLevel(name: string, logLevel: string): asserts logLevel is LlamaLogLevel {
    const allowed: readonly string[] = Object.values(LlamaLogLevel);
    if (!allowed.includes(logLevel))
        throw new TypeError(`${name} is ${show(logLevel)}; allowed are ${allowed.map((level) => `"${level}"`).join(", ")}`);
}

/*
 * node-llama-cpp's defaults, which it does not export.
 */

function logLevelFromEnvironment(): LlamaLogLevel {
    const logLevel = process.env.NODE_LLAMA_CPP_LOG_LEVEL || LlamaLogLevel.warn;
    checkLogLevel("NODE_LLAMA_CPP_LOG_LEVEL", logLevel);
    return logLevel;
}

function debugFromEnvironment(): boolean {
    return ["true", "1"].includes(process.env.NODE_LLAMA_CPP_DEBUG ?? "");
}

function defaultVramPadding(total: number): number {
    return Math.floor(Math.min(total * 0.08, 1.6 * 1024 ** 3));
}

function defaultRamPadding(total: number): number {
    const most = process.platform === "linux"
        ? 1024 ** 3
        : 6 * 1024 ** 3;
    return Math.floor(Math.min(total * 0.25, most));
}
