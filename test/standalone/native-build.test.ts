// What the native part is built for, and what says so.
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import {fileURLToPath} from "node:url";
import test from "ava";
import {NoBinaryFoundError} from "reattend";
import {findBuilds, version} from "#dist/builds.js";
import type {BuildInfo} from "#dist/builds.js";
import {runCli, runProcess} from "../support/cli.js";

const scripts = new URL("../../scripts/", import.meta.url);
const {buildInfo, commonDefinitions} = await import(new URL("lib/native-build.js", scripts).href) as {
    commonDefinitions: (gpu: string | false, portable: boolean) => Record<string, string>,
    buildInfo: (options: Pick<BuildInfo, "gpu" | "portable">) => BuildInfo
};
const buildNative = fileURLToPath(new URL("build-native.js", scripts));

/** The script with nothing to do. */
async function checkEnvironment(env: Record<string, string>, ...args: string[]) {
    return await runProcess(process.execPath, [buildNative, ...args], {env: {REATTEND_SKIP_BUILD: "1", ...env}});
}

test("REATTEND_GPU and REATTEND_PORTABLE are named where they are wrong, and empty ones are none", async (t) => {
    t.is((await checkEnvironment({REATTEND_GPU: "", REATTEND_PORTABLE: ""})).code, 0);
    t.is((await checkEnvironment({REATTEND_GPU: "vulkan", REATTEND_PORTABLE: "1"})).code, 0);

    const gpu = await checkEnvironment({REATTEND_GPU: "cpu"});
    t.is(gpu.code, 2);
    t.regex(gpu.stderr, /^REATTEND_GPU is "cpu"; allowed are cuda, vulkan, metal, false\n/);
    t.is((await checkEnvironment({REATTEND_GPU: "cpu"}, "--gpu", "false")).code, 0);
    const portable = await checkEnvironment({REATTEND_PORTABLE: "yes"});
    t.is(portable.code, 2);
    t.regex(portable.stderr, /^REATTEND_PORTABLE is "yes"; allowed are 0 and 1\n/);
});

test("reattend build --portable", async (t) => {
    const {code, stderr} = await runCli(["build", "--gpu", "false", "--portable"], {env: {REATTEND_SKIP_BUILD: "1"}});
    t.is(code, 0, stderr);
});

test("a portable build is not for the processor at hand, and on x64 for one with AVX2", (t) => {
    t.is(commonDefinitions(false, false).GGML_NATIVE, "ON");
    const {GGML_NATIVE, GGML_AVX2, GGML_AVX512} = commonDefinitions(false, true);
    t.is(GGML_NATIVE, "OFF");
    t.is(GGML_AVX2, process.arch === "x64" ? "ON" : undefined);
    t.is(GGML_AVX512, undefined);
});

test("reattend build without --gpu leaves the choice to the script, as an installation does", async (t) => {
    const {code, stderr} = await runCli(["build"], {env: {REATTEND_SKIP_BUILD: "1", REATTEND_GPU: "cpu"}});
    t.is(code, 2);
    t.regex(stderr, /^REATTEND_GPU is "cpu"/);
    t.is((await runCli(["build"], {env: {REATTEND_SKIP_BUILD: "1"}})).code, 0);
});

test("build.json says which version of reattend compiled it", (t) => {
    t.is(buildInfo({gpu: false, portable: false}).reattend, version);
    for (const {reattend} of findBuilds())
        t.is(reattend, version);
});

test("a damaged build.json is named", async (t) => {
    const root = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-test-"));
    t.teardown(() => fs.rm(root, {recursive: true}));
    const folder = path.join(root, "native", "bin", `${process.platform}-${process.arch}`);
    await fs.mkdir(folder, {recursive: true});
    t.deepEqual(findBuilds(root), []);

    const whole = {gpu: false, llamaCpp: {repo: "", release: ""}, cmakeOptions: {}};
    await fs.writeFile(path.join(folder, "build.json"), JSON.stringify(whole));
    t.deepEqual(findBuilds(root), [{...whole, bindingPath: path.join(folder, "reattend.node")}]);

    for (const [content, reason] of [
        ['{"gpu": fal', "[^]*"],
        ["[]", "its gpu is missing, where false belongs"],
        ["null", "its gpu is missing, where false belongs"],
        ["1", "its gpu is missing, where false belongs"],
        [JSON.stringify({...whole, gpu: "cuda"}), 'its gpu is "cuda", where false belongs'],
        [JSON.stringify({...whole, llamaCpp: null}), "its llamaCpp is null, where .* belongs"],
        [JSON.stringify({...whole, cmakeOptions: 1}), "its cmakeOptions is 1, where an object belongs"]
    ] as const) {
        await fs.writeFile(path.join(folder, "build.json"), content);
        const error = t.throws(() => findBuilds(root), {
            instanceOf: NoBinaryFoundError,
            message: new RegExp(`build\\.json is damaged: ${reason}\\. Build again with \`npx reattend build --gpu false\`, or remove its folder\\.$`)
        });
        t.true(error.message.startsWith(folder), error.message);
    }
});
