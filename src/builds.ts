import fs from "node:fs";
import {createRequire} from "node:module";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import {NoBinaryFoundError} from "node-llama-cpp";
import type {LlamaGpuType} from "node-llama-cpp";

/** What scripts/build-native leaves beside a finished binary, in `build.json`. */
export type BuildInfo = {
    /** the version that compiled it; builds of before 0.1.0 don't say */
    reattend?: string,
    gpu: LlamaGpuType,

    /** for other processors than that of the machine that compiled it, too */
    portable?: boolean,
    llamaCpp: {repo: string, release: string},
    cmakeOptions: Record<string, string>
};

/** A finished native build for this platform. */
export type Build = BuildInfo & {bindingPath: string};

/** From best to worst: the order in which `gpu: "auto"` takes them. */
const gpuTypes = ["metal", "cuda", "vulkan", false] as const satisfies readonly LlamaGpuType[];

const packageRoot = fileURLToPath(new URL("..", import.meta.url));

/** This package's version, which its builds must have. */
export const {version} = createRequire(import.meta.url)("../package.json") as {version: string};

/** Where the builds are. */
export function findBinariesFolder(root: string = packageRoot): string {
    // Electron packs JavaScript into an archive, but native code stays outside of it
    return path.join(root, "native", "bin").replace(`.asar${path.sep}`, `.asar.unpacked${path.sep}`);
}

/** Every finished native build for this platform, best first. */
export function findBuilds(root: string = packageRoot): Build[] {
    const binariesFolder = findBinariesFolder(root);

    return gpuTypes.flatMap((gpu) => {
        const folder = path.join(binariesFolder, buildName(gpu));
        const infoPath = path.join(folder, "build.json");
        if (!fs.existsSync(infoPath))
            return [];

        return [{...readInfo(infoPath, gpu), bindingPath: path.join(folder, "reattend.node")}];
    });
}

/** The command that makes a build like this one. */
export function buildCommand({gpu, portable}: Pick<BuildInfo, "gpu" | "portable">): string {
    return `npx reattend build --gpu ${gpu}${portable === true ? " --portable" : ""}`;
}

/** The error takes no cause itself. */
export function noBinaryFound(message: string, cause?: unknown): NoBinaryFoundError {
    const error = new NoBinaryFoundError(message);
    if (cause != null)
        Object.defineProperty(error, "cause", {value: cause, configurable: true, writable: true});
    return error;
}

function readInfo(file: string, gpu: LlamaGpuType): BuildInfo {
    let info: unknown;
    try {
        info = JSON.parse(fs.readFileSync(file, "utf8"));
    } catch (error) {
        throw damaged(file, gpu, (error as Error).message, error);
    }

    const {llamaCpp, cmakeOptions, ...rest} = (info ?? {}) as Partial<BuildInfo>;
    if (rest.gpu !== gpu)
        throw damaged(file, gpu, `its gpu is ${JSON.stringify(rest.gpu) ?? "missing"}, where ${JSON.stringify(gpu)} belongs`);
    if (typeof llamaCpp?.repo !== "string" || typeof llamaCpp.release !== "string")
        throw damaged(file, gpu, `its llamaCpp is ${JSON.stringify(llamaCpp) ?? "missing"}, where {"repo", "release"} belongs`);
    if (cmakeOptions === null || typeof cmakeOptions !== "object")
        throw damaged(file, gpu, `its cmakeOptions is ${JSON.stringify(cmakeOptions) ?? "missing"}, where an object belongs`);
    return info as BuildInfo;
}

function damaged(file: string, gpu: LlamaGpuType, reason: string, cause?: unknown): Error {
    return noBinaryFound(`${file} is damaged: ${reason}. Build again with \`${buildCommand({gpu})}\`, or remove its folder.`, cause);
}

/** The folder of a build inside native/bin; scripts/lib/paths.js has the same rule. */
function buildName(gpu: LlamaGpuType): string {
    return [process.platform, process.arch, ...(gpu === false ? [] : [gpu])].join("-");
}
