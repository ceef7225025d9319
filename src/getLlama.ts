import process from "node:process";
import {Llama, LlamaLogLevel, NoBinaryFoundError} from "node-llama-cpp";
import type {LastBuildOptions, LlamaGpuType, LlamaOptions as NodeLlamaCppOptions} from "node-llama-cpp";
import {batchSequencesTogether} from "./batching.js";
import {createLlama, loadBinding} from "./binding.js";
import {findBuilds} from "./builds.js";
import {checkRpcServers, connectRpcServers, RpcServerError, withRpcServers} from "./rpc.js";
import {defaultThreads} from "./threads.js";
import type {Build} from "./builds.js";

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
     * ```typescript
     * const llama = await getLlama({rpcServers: ["192.168.1.20:50052", "192.168.1.21:50052"]});
     * const model = await llama.loadModel({modelPath});
     * ```
     */
    rpcServers?: readonly string[]
};

type GpuOption = NonNullable<LlamaOptions["gpu"]>;

const rebuildHint = "Build it with `npm rebuild reattend` (in reattend's own repository: `npm run build:native`)";

/**
 * `getLlama` of node-llama-cpp, on reattend's own build of llama.cpp.
 *
 * It differs in this: nothing is built or downloaded here, so options about that are refused where they would change
 * anything, and without a GPU the number of threads defaults to the physical cores that this process may use.
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

    const candidates = selectBuilds(options.gpu ?? gpuFromEnvironment(), findBuilds());
    const failures: string[] = [];
    for (const build of candidates) {
        try {
            return await load(build, options);
        } catch (error) {
            // a GPU build does not load without its driver, so "auto" goes on to the next
            if (candidates.length === 1 || error instanceof RpcServerError)
                throw error;
            failures.push(`${gpuName(build.gpu)}: ${String(error)}`);
        }
    }
    throw new NoBinaryFoundError(`None of reattend's native builds loads here. ${failures.join("; ")}`);
}

async function load(build: Build, options: LlamaOptions): Promise<Llama> {
    const binding = loadBinding(build.bindingPath);
    const servers = await connectRpcServers(binding, options.rpcServers ?? []);
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
    batchSequencesTogether(llama);

    if (options.maxThreads == null && binding.getGpuType() === false)
        llama.maxThreads = defaultThreads(llama.cpuMathCores);
    if (options.dryRun === true)
        await llama.dispose();
    return llama;
}

/** The builds that an option allows, best first; throws where there is none. */
export function selectBuilds(gpu: GpuOption, builds: Build[]): Build[] {
    if (builds.length === 0)
        throw new NoBinaryFoundError(`reattend's native part is not built for ${process.platform}-${process.arch}. ${rebuildHint}.`);

    const excluded = typeof gpu === "object"
        ? gpu.exclude ?? []
        : [];
    const wanted = typeof gpu === "object"
        ? gpu.type
        : gpu;
    const selected = builds.filter((build) => (
        (wanted === "auto" || wanted === build.gpu) && !excluded.includes(build.gpu)
    ));
    if (selected.length === 0)
        throw new NoBinaryFoundError(
            `No native build of reattend fits gpu: ${JSON.stringify(gpu)}; there is ${builds.map((build) => gpuName(build.gpu)).join(", ")}. ` +
            "Build it with `npx reattend build --gpu` and cuda, vulkan, metal or false."
        );

    return selected;
}

function checkOptions(options: LlamaOptions): void {
    const {gpu, build, cmakeOptions, logLevel, maxThreads, rpcServers} = options;

    const gpuType: unknown = typeof gpu === "object"
        ? gpu.type
        : gpu;
    if (gpuType != null && !["auto", "metal", "cuda", "vulkan", false].includes(gpuType as GpuOption & string))
        throw new TypeError(`gpu is ${JSON.stringify(gpu)}; allowed are "auto", "metal", "cuda", "vulkan" and false`);

    if (logLevel != null && !Object.values(LlamaLogLevel).includes(logLevel))
        throw new TypeError(
            `logLevel is ${JSON.stringify(logLevel)}; allowed are ${Object.values(LlamaLogLevel).map((level) => `"${level}"`).join(", ")}`
        );

    if (maxThreads != null && !(Number.isInteger(maxThreads) && maxThreads >= 0))
        throw new RangeError(`maxThreads is ${maxThreads}; allowed are whole numbers from 0, which stands for no limit`);

    if (rpcServers != null)
        checkRpcServers(rpcServers);

    if (build === "forceRebuild" || Object.keys(cmakeOptions ?? {}).length > 0)
        throw new TypeError(
            `${build === "forceRebuild" ? 'build is "forceRebuild"' : "cmakeOptions is given"}, but getLlama of reattend builds nothing. ${rebuildHint}.`
        );
}

function gpuName(gpu: LlamaGpuType): string {
    return gpu === false
        ? "false (CPU only)"
        : JSON.stringify(gpu);
}

/*
 * node-llama-cpp's defaults, which it does not export.
 */

function gpuFromEnvironment(): GpuOption {
    const name = process.env.NODE_LLAMA_CPP_GPU ?? "auto";
    return ["false", "off", "none", "disable", "disabled"].includes(name)
        ? false
        : name as GpuOption;
}

function logLevelFromEnvironment(): LlamaLogLevel {
    return (process.env.NODE_LLAMA_CPP_LOG_LEVEL ?? LlamaLogLevel.warn) as LlamaLogLevel;
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
