import path from "node:path";
import process from "node:process";
import {buildCommand, findBinariesFolder, noBinaryFound, version} from "./builds.js";
import {RpcServerError} from "./rpc.js";
import type {LlamaGpuType} from "node-llama-cpp";
import type {Build} from "./builds.js";
import type {LlamaOptions} from "./getLlama.js";

export type GpuOption = NonNullable<LlamaOptions["gpu"]>;

export const rebuildHint = "Build it with `npx reattend build` (in reattend's own repository: `npm run build:native`)";

/** The builds that an option allows, best first; throws where there is none. */
export function selectBuilds(gpu: GpuOption, builds: Build[]): Build[] {
    if (builds.length === 0)
        throw noBinaryFound(`reattend's native part is not built for ${process.platform}-${process.arch}: ${findBinariesFolder()} has no build. ${rebuildHint}.`);

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
        throw noBinaryFound(
            `No native build of reattend fits gpu: ${JSON.stringify(gpu)}; there is ${builds.map((build) => gpuName(build.gpu)).join(", ")}. ` +
            "Build it with `npx reattend build --gpu` and cuda, vulkan, metal or false."
        );

    return selected;
}

/** What was made of a build. */
export type Opened<T> = {
    value: T,

    /** whether it has devices to compute with, or needs none */
    isUsable: boolean,
    close: () => Promise<void> | void
};

/**
 * Opens the first of the builds that loads and has a device to compute with. A GPU build does not load without its driver, and finds
 * no device where there is none. The last one has no other behind it, so it is taken without a device, too.
 *
 * One of another version is refused, though others are behind it: who has built for a GPU would not notice that it is no longer used.
 */
export async function openBest<T>(
    builds: readonly Build[], open: (build: Build) => Opened<T> | Promise<Opened<T>>
): Promise<T> {
    const failures: Array<{build: Build, reason: unknown}> = [];
    for (const [index, build] of builds.entries()) {
        requireOwnVersion(build);
        try {
            const {value, isUsable, close} = await open(build);
            if (isUsable || index === builds.length - 1)
                return value;
            await close();
            failures.push({build, reason: "it finds no device"});
        } catch (error) {
            if (error instanceof RpcServerError)
                throw error;
            failures.push({build, reason: error});
        }
    }
    const [only] = failures;
    if (failures.length === 1 && only!.reason instanceof Error && (only!.reason as NodeJS.ErrnoException).code !== "ERR_DLOPEN_FAILED")
        throw only!.reason; // it has loaded, but what the user gave has thrown
    throw noneLoads(failures);
}

function requireOwnVersion(build: Build): void {
    const {reattend, bindingPath} = build;
    if (reattend !== version)
        throw noBinaryFound(
            `The native build in ${path.dirname(bindingPath)} was built for ${reattend == null ? "an earlier version of reattend" : `reattend ${reattend}`}, ` +
            `this is ${version}: run \`${buildCommand(build)}\`, or remove that folder.`
        );
}

function noneLoads(failures: ReadonlyArray<{build: Build, reason: unknown}>): Error {
    const described = failures.map(({build, reason}) => `${reason instanceof Error ? reason.message : String(reason)} (${build.bindingPath})`);
    const commands = failures.map(({build}) => `\`${buildCommand(build)}\``);
    const causes = failures.map(({reason}) => reason).filter((reason) => reason instanceof Error);
    if (failures.length === 1)
        return noBinaryFound(`reattend's native build does not load: ${described[0]}. Build it anew with ${commands[0]}.`, causes[0]);

    return noBinaryFound(
        `None of reattend's native builds loads here: ${described.join("; ")}. Build one anew with ${commands.join(" or ")}.`,
        causes.length > 1 ? new AggregateError(causes) : causes[0]
    );
}

/** node-llama-cpp's default for `gpu`, which it does not export. */
export function gpuFromEnvironment(): "auto" | LlamaGpuType {
    const name = process.env.NODE_LLAMA_CPP_GPU || "auto";
    if (["false", "off", "none", "disable", "disabled"].includes(name))
        return false;
    if (!["auto", "metal", "cuda", "vulkan"].includes(name))
        throw new TypeError(`NODE_LLAMA_CPP_GPU is "${name}"; allowed are auto, metal, cuda, vulkan and false`);
    return name as "auto" | LlamaGpuType;
}

function gpuName(gpu: LlamaGpuType): string {
    return gpu === false
        ? "false (CPU only)"
        : JSON.stringify(gpu);
}
