import fs from "node:fs";
import path from "node:path";
import {fileURLToPath} from "node:url";
import type {LlamaGpuType} from "node-llama-cpp";

/** What scripts/build-native leaves beside a finished binary, in `build.json`. */
export type BuildInfo = {
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

/** Every finished native build for this platform, best first. */
export function findBuilds(root: string = packageRoot): Build[] {
    // Electron packs JavaScript into an archive, but native code stays outside of it
    const binariesFolder = path.join(root, "native", "bin").replace(`.asar${path.sep}`, `.asar.unpacked${path.sep}`);

    return gpuTypes.flatMap((gpu) => {
        const folder = path.join(binariesFolder, buildName(gpu));
        const infoPath = path.join(folder, "build.json");
        if (!fs.existsSync(infoPath))
            return [];

        return [{...readInfo(infoPath), bindingPath: path.join(folder, "reattend.node")}];
    });
}

function readInfo(file: string): BuildInfo {
    try {
        return JSON.parse(fs.readFileSync(file, "utf8")) as BuildInfo;
    } catch (error) {
        throw new Error(`${file} is damaged: ${(error as Error).message}. Build again, or remove its folder.`, {cause: error});
    }
}

/** The folder of a build inside native/bin; scripts/lib/paths.js has the same rule. */
function buildName(gpu: LlamaGpuType): string {
    return [process.platform, process.arch, ...(gpu === false ? [] : [gpu])].join("-");
}
