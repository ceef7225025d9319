import {spawn} from "node:child_process";
import {once} from "node:events";
import fs from "node:fs";
import process from "node:process";
import test from "ava";
import {cliPath, runCli, runProcess} from "../support/cli.js";

const usageErrors = {
    "an unknown flag": [["complete", "x", "--foo"], "unknown option '--foo'"],
    "an unknown command": [["bogus"], "unknown command 'bogus'"],
    "a value that is no number": [["complete", "x", "--strength", "much"], '--strength is "much"; allowed are numbers of at least -1'],
    "a value out of range": [["complete", "x", "--threshold", "1"], '--threshold is "1"; allowed are numbers above 0 and below 1'],
    "a fraction for a whole number": [["bench", "--rounds", "1.5"], '--rounds is "1.5"; allowed are whole numbers of at least 1'],
    "a bad item of a list": [["bench", "--depths", "0,x"], '--depths is "x"; allowed are whole numbers from 0 to 10000000'],
    "a context that no machine has room for": [
        ["complete", "x", "--context-size", "1e9"], '--context-size is "1e9"; allowed are whole numbers from 8 to 10000000'
    ],
    "an unknown choice": [["chat", "--pattern", "some"], '--pattern is "some"; allowed are early-layer, all, random and first-token'],
    "a kind of GPU that there is none of": [
        ["complete", "x", "--gpu", "opencl"], '--gpu is "opencl"; allowed are auto, cuda, vulkan, metal and false'
    ],
    "a type that the KV cache can't have": [
        ["complete", "x", "--cache-type-k", "q9"], '--cache-type-k is "q9"; allowed are f16, f32, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 and iq4_nl'
    ],
    "quantised values without flash attention": [
        ["complete", "x", "--cache-type-v", "q8_0", "--no-flash-attention"],
        '--cache-type-v is "q8_0"; allowed with --no-flash-attention are f16, f32 and bf16'
    ],
    "a build for a kind of GPU that there is none of": [
        ["build", "--gpu", "opencl"], '--gpu is "opencl"; allowed are cuda, vulkan, metal and false'
    ],
    "a bad schedule": [["complete", "x", "--schedule", "1,,2"], '--schedule is "1,,2"; allowed are linear, constant, and a number for each layer'],
    "two prompts": [["complete", "x", "--prompt", "y"], "the prompt is given more than once"],
    "an empty prompt": [["complete", ""], "the prompt is empty"],
    "a context too small to measure in": [["bench", "--context-size", "100"], "--context-size is 100; allowed are at least 2065"],
    "an option that the model does not allow": [
        ["complete", "x", "--source-layer", "99", "--threads", "1"], "--source-layer is 99, but must be a whole number from 0 to"
    ],
    "a schedule of another model": [["complete", "x", "--schedule", "1,2", "--threads", "1"], "--schedule "]
} as const;

for (const [title, [args, message]] of Object.entries(usageErrors)) {
    test(`${title} is bad usage: exit code 2, one sentence, nothing on stdout`, async (t) => {
        const {code, stdout, stderr} = await runCli(args);

        t.is(code, 2, stderr);
        t.is(stdout, "");
        t.true(stderr.includes(message), stderr);
        t.false(stderr.includes("    at "), "a stack trace is shown");
    });
}

test("serve-rpc takes IPv4 addresses only, as llama.cpp does", async (t) => {
    for (const host of ["::1", "", "no-such-host.invalid"]) {
        const {code, stderr} = await runCli(["serve-rpc", "--host", host]);
        t.is(code, 1);
        t.is(stderr, `reattend: --host is "${host}", which has no IPv4 address\n`);
    }
});

test("in a clone the command can be run as it is, which npx does there", (t) => {
    t.notThrows(() => fs.accessSync(cliPath, fs.constants.X_OK));
});

test("--help lists every command, and takes at most 150 ms more than Node itself takes to start", async (t) => {
    const {code, stdout} = await runCli(["--help"]);
    t.is(code, 0);
    for (const command of ["complete", "chat", "bench", "inspect", "evaluate", "tune", "demo", "build", "serve-rpc"])
        t.true(stdout.includes(command));

    const help = await leastCpuTime([cliPath, "--help"]);
    const node = await leastCpuTime(["--eval", "0"]);
    t.true(help - node < 150, `${help} ms, Node alone ${node} ms`);
});

test("a GPU without a build for it is a failure that says how to get one: exit code 1", async (t) => {
    const gpu = process.platform === "darwin" ? "cuda" : "metal"; // which can't be built here
    const {code, stderr} = await runCli(["complete", "x", "--gpu", gpu]);
    t.is(code, 1, stderr);
    t.regex(stderr, new RegExp(`gpu: "${gpu}"; there is .*npx reattend build`));
});

test("NODE_LLAMA_CPP_GPU counts where there is no --gpu", async (t) => {
    const env = {NODE_LLAMA_CPP_GPU: process.platform === "darwin" ? "cuda" : "metal"};
    const args = ["complete", "x", "--threads", "1", "--max-tokens", "1"];
    const [asEnvironment, asFlag] = await Promise.all([runCli(args, {env}), runCli([...args, "--gpu", "false"], {env})]);
    t.is(asEnvironment.code, 1);
    t.true(asEnvironment.stderr.includes(`gpu: "${env.NODE_LLAMA_CPP_GPU}"; there is`), asEnvironment.stderr);
    t.is(asFlag.code, 0, asFlag.stderr);
});

test("what can't be built here is told in one sentence: exit code 1", async (t) => {
    const gpu = process.platform === "darwin" ? "cuda" : "metal";
    const {code, stderr} = await runCli(["build", "--gpu", gpu]);
    t.is(code, 1, stderr);
    t.regex(stderr, /^build-native: .*(nvcc|macOS)/);
});

test("--version prints the version of the package", async (t) => {
    const {code, stdout} = await runCli(["--version"]);
    t.is(code, 0);
    t.regex(stdout, /^\d+\.\d+\.\d+\n$/);
});

test("a reader that closes the pipe early is no error", async (t) => {
    const {code, stdout, stderr} = await runProcess("bash", [
        "-c", "set -o pipefail; \"$0\" \"$1\" bench --help | true; \"$0\" \"$1\" complete --json --max-tokens 4 --threads 1 x | head -n 1",
        process.execPath, cliPath
    ]);
    t.is(code, 0, stderr);
    t.is(stdout, "{\n");
});

/** In milliseconds. The CPU's time, and the least of several runs, since both tell less of how busy the machine is. */
async function leastCpuTime(args: readonly string[]): Promise<number> {
    const atExit = 'process.on("exit", () => {const {user, system} = process.cpuUsage(); console.error((user + system) / 1000);})';
    let least = Infinity;
    for (let run = 0; run < 5; run++) {
        const {stderr} = await runProcess(process.execPath, ["--import", `data:text/javascript,${encodeURIComponent(atExit)}`, ...args]);
        least = Math.min(least, Number(stderr));
    }
    return least;
}

const hasFullDevice = fs.existsSync("/dev/full");
const onFullDevice = `a full device for a standard output is said in one sentence${hasFullDevice ? "" : " [skipped: there is no /dev/full]"}`;
(hasFullDevice ? test : test.skip)(onFullDevice, async (t) => {
    const {code, stderr} = await runProcess("/bin/sh", ["-c", '"$0" "$1" --version > /dev/full', process.execPath, cliPath]);
    t.is(code, 1);
    t.regex(stderr, /^reattend: cannot write to the standard output: .*\n$/);
});

test("without a reader of the standard error, the work goes on", async (t) => {
    const child = spawn(process.execPath, [cliPath, "complete", "x", "--max-tokens", "2", "--threads", "1", "--debug"]);
    child.stderr.destroy();
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => stdout += chunk.toString());
    const [code] = await once(child, "close") as [number | null];
    t.is(code, 0);
    t.not(stdout, "");
});
