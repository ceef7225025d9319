// The programs of bench/native, built against our llama.cpp and against the same one without our patches.
import fs from "node:fs";
import path from "node:path";
import {withBuildLock} from "../../scripts/lib/lock.js";
import {git, tryGit} from "../../scripts/lib/git.js";
import {compile} from "../../scripts/lib/native-build.js";
import {buildFolder, buildName, sourceFolder} from "../../scripts/lib/paths.js";
import {prepareSource, readState} from "../../scripts/lib/source.js";
import {requireTools} from "../../scripts/lib/tools.js";

const unpatchedFolder = path.join(buildFolder, "source", "unpatched");

/**
 * For valgrind, which knows no AVX-512. Without GGML_NATIVE, llama.cpp takes AVX2.
 */
const forValgrind = {GGML_NATIVE: "OFF"};

/** @returns {Promise<string>} the folder with the programs */
export async function buildOurs({valgrind = false} = {}) {
    return await build(valgrind ? "valgrind" : buildName(false), valgrind ? {REATTEND_ADDON: "OFF", ...forValgrind} : {});
}

/** The pinned llama.cpp with node-llama-cpp's own patch only, built as ours is. */
export async function buildUnpatched({valgrind = false} = {}) {
    return await build(valgrind ? "valgrind-unpatched" : "unpatched", {
        REATTEND_LLAMA_CPP: unpatchedFolder,
        REATTEND_ADDON: "OFF",
        ...(valgrind ? forValgrind : {})
    });
}

async function build(name, definitions) {
    requireTools();
    return await withBuildLock(async () => {
        prepareSource();
        prepareUnpatchedSource();
        return await compile({name, gpu: false, config: "Release", definitions, target: "reattend-bench"});
    });
}

/** A second checkout of our tree, at the commit that our patches start on; git's objects are shared. */
function prepareUnpatchedSource() {
    const {base} = readState();
    if (!fs.existsSync(unpatchedFolder))
        git(buildFolder, ["clone", "--quiet", "--shared", "--no-checkout", sourceFolder, unpatchedFolder]);

    const head = tryGit(unpatchedFolder, ["rev-parse", "HEAD"]).stdout.trim();
    if (head !== base || git(unpatchedFolder, ["status", "--porcelain"]) !== "")
        git(unpatchedFolder, ["reset", "--quiet", "--hard", base]);
}
