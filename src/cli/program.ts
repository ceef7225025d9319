import {createRequire} from "node:module";
import {Command} from "commander";
import {
    addEmulationFlags, addModelFlags, addSamplingFlags, choiceOption, gpuFlag, gpuTypes, mostTokens, numberListOption, numberOption,
    optionalChoiceOption, scheduleOption
} from "./flags.js";
import type {BenchFlags} from "./bench.js";
import type {BuildFlags} from "./build.js";
import type {ChatFlags} from "./chat.js";
import type {CompleteFlags} from "./complete.js";
import type {DemoFlags} from "./demo.js";
import type {EvaluateFlags} from "./evaluate.js";
import type {InspectFlags} from "./inspect.js";
import type {ServeRpcFlags} from "./serveRpc.js";
import type {TuneFlags} from "./tune.js";

const {version} = createRequire(import.meta.url)("../../package.json") as {version: string};

/** All commands and their flags. A command's code, and llama.cpp with it, is loaded only once the command runs. */
export function createProgram(): Command {
    const program = new Command("reattend")
        .description("Run local GGUF models with later layers re-attending to what the first layer looked at.")
        .version(version)
        .exitOverride()
        .showHelpAfterError("(see --help)")
        .configureHelp({showGlobalOptions: false});

    const complete = program.command("complete")
        .description("Continue a text.")
        .argument("[prompt]", "the text; or --prompt, --file, or standard input")
        .option("-p, --prompt <text>", "the text")
        .option("-f, --file <file>", "a file with the text")
        .option("--compare", "show what the plain and the steered model write, side by side")
        .option("--json", "print one JSON object");
    addSamplingFlags(complete, {maxTokens: 256});
    addEmulationFlags(complete);
    addModelFlags(complete);
    complete.action(async (prompt: string | undefined, flags: CompleteFlags) => {
        const {runComplete} = await import("./complete.js");
        await runComplete(prompt, flags);
    });

    const chat = program.command("chat")
        .description("Talk with a model. Each line of standard input is a turn; /help lists what else can be typed.")
        .option("--system <text>", "system prompt")
        .option("--json", "print one JSON object per turn, each on a line");
    addSamplingFlags(chat, {maxTokens: 1024});
    addEmulationFlags(chat);
    addModelFlags(chat);
    chat.action(async (flags: ChatFlags) => {
        const {runChat} = await import("./chat.js");
        await runChat(flags);
    });

    const bench = program.command("bench")
        .description("Measure what emulation costs: speed with and without it, in turns in one process, and memory.")
        .addOption(numberListOption("--depths <list>", "tokens in the context when decoding is measured", {integer: true, min: 0, max: mostTokens})
            .default([0, 512, 2048], "0,512,2048"))
        .addOption(numberListOption("--prefill <list>", "lengths of prompts", {integer: true, min: 1, max: mostTokens})
            .default([512, 2048], "512,2048"))
        .addOption(numberOption("--rounds <n>", "times that each measurement is repeated", {integer: true, min: 1}).default(5))
        .addOption(numberOption("--decode-tokens <n>", "tokens per block of decoding", {integer: true, min: 1, max: mostTokens}).default(16))
        .addOption(choiceOption("--clock <clock>", "what is timed; cpu: the CPU time of all threads, for a busy machine", ["wall", "cpu"]))
        .option("--json", "print one JSON object");
    addEmulationFlags(bench);
    addModelFlags(bench);
    bench.action(async (flags: BenchFlags) => {
        const {runBench} = await import("./bench.js");
        await runBench(flags);
    });

    const inspect = program.command("inspect")
        .description("Show what each layer and head looks at in a text, plain and steered.")
        .argument("[prompt]", "the text; or --prompt, --file, or standard input")
        .option("-p, --prompt <text>", "the text")
        .option("-f, --file <file>", "a file with the text")
        .option("-o, --output <file>", "write the report, one HTML page that works offline, like report.html")
        .option("--force", "write it even where another file than a page of reattend's is")
        .option("--terminal", "print a summary, with --output, too; without it that is what is done")
        .option("--json", "print one JSON object")
        .addOption(numberListOption("--layers <list>", "layers to look at (default: all)", {integer: true, min: 0}))
        .addOption(numberListOption("--heads <list>", "heads to look at (default: all)", {integer: true, min: 0}));
    addEmulationFlags(inspect);
    addModelFlags(inspect);
    inspect.action(async (prompt: string | undefined, flags: InspectFlags) => {
        const {runInspect} = await import("./inspect.js");
        await runInspect(prompt, flags);
    });

    const evaluate = program.command("evaluate")
        .description("Find out whether emulation helps a model with a task: the same items under every arm, with statistics.")
        .requiredOption("--task <task>", "mmlu, piqa, social-iqa, choice, free-form, embedded or text")
        .option("--data <path>", "file or folder with the task's data (default of embedded: the embedded model's unseen questions)")
        .requiredOption("-o, --output <folder>", "where results and report go; the same command again goes on where it was stopped")
        .option("--arms <list>", "of plain, early-layer, all, random, first-token (up, and down to -1), and files with options for emulation",
            "plain,early-layer,all,random,first-token")
        .option("--way <way>", "how an answer is had: letter, text (log-likelihoods) or generation (default: the task's)")
        .option("--template <template>", "own or none: the model's chat template (default: own where answers are written, if it has one)")
        .addOption(numberListOption("-s, --strength <list>", "how much the chosen keys' weights grow; of several, each is an arm", {min: -1})
            .default([0.2], "0.2"))
        .addOption(numberOption("--threshold <number>", "a key is chosen above this weight", {above: 0, below: 1}).default(0.01))
        .addOption(numberOption("--source-layer <n>", "the layer whose attention chooses the keys", {integer: true, min: 0}).default(0))
        .addOption(scheduleOption())
        .addOption(numberOption("--pattern-seed <n>", "seed of the random pattern", {integer: true, min: 0, max: 2 ** 32 - 1}).default(0))
        .option("--normalize", "make the changed weights sum to 1 again")
        .addOption(choiceOption("--kernel <kernel>", "how it is computed", ["auto", "dense"]))
        .addOption(numberOption("--shots <n>", "examples with their answers before each question (letter and text)", {integer: true, min: 0}).default(0))
        .option("--shots-data <file>", "the examples, in the form of the task's data; mmlu has them in its dev files")
        .addOption(numberOption("--limit <n>", "at most so many items, chosen evenly over the subjects", {integer: true, min: 1}))
        .addOption(numberOption("--seed <n>", "seed of that choice and of the bootstrap", {integer: true, min: 0}).default(1))
        .addOption(numberOption("-n, --max-tokens <n>", "length of a written answer", {integer: true, min: 1}).default(512))
        .addOption(numberOption("--window <n>", "tokens of text that are foretold in one piece", {integer: true, min: 4}).default(512))
        .option("--answer-pattern <regex>", "regular expression that finds the answer in what is written (free-form)")
        .addOption(numberOption("--sequences <n>", "items that are evaluated side by side", {integer: true, min: 1, max: 256}).default(8))
        .option("--json", "print the report as one JSON object");
    addModelFlags(evaluate);
    evaluate.action(async (flags: EvaluateFlags) => {
        const {runEvaluate} = await import("./evaluate.js");
        await runEvaluate(flags);
    });

    const tune = program.command("tune")
        .description("Find how emulation helps a model with a task, if it does: search on some items, confirm on others, write a profile.")
        .requiredOption("--task <task>", "mmlu, piqa, social-iqa, choice or embedded")
        .option("--data <path>", "file or folder with the task's data (default of embedded: the embedded model's unseen questions)")
        .requiredOption("-o, --output <file>", "where the profile goes; the same command again goes on where it was stopped")
        .addOption(optionalChoiceOption("--way <way>", "what the log-likelihood is of (default: the task's)", ["letter", "text"]))
        .addOption(optionalChoiceOption("--template <template>", "the model's chat template (default: as the task needs)", ["own", "none"]))
        .option("--patterns <list>", "which patterns may be chosen, of early-layer, all, random, first-token", "early-layer,all,first-token")
        .addOption(numberOption("--source-layer <n>", "the layer whose attention chooses the keys", {integer: true, min: 0}).default(0))
        .option("--budget <n>", "items that may be scored, like 5000, or a time, like 10m (default: 40 times the items to train on)")
        .addOption(numberOption("--confirm <share>", "of the items, kept for confirmation", {above: 0, below: 1}).default(0.5))
        .addOption(numberOption("--limit <n>", "at most so many items, chosen evenly over the subjects", {integer: true, min: 16}))
        .addOption(numberOption("--seed <n>", "seed of the splits and of the search", {integer: true, min: 0}).default(1))
        .addOption(numberOption("--sequences <n>", "items that are evaluated side by side", {integer: true, min: 1, max: 256}).default(8))
        .option("--json", "print one JSON object");
    addModelFlags(tune);
    tune.action(async (flags: TuneFlags) => {
        const {runTune} = await import("./tune.js");
        await runTune(flags);
    });

    const demo = program.command("demo")
        .description("Ask the embedded model questions that it was not trained on, plain and steered, and compare.")
        .addOption(numberOption("--questions <n>", "how many", {integer: true, min: 1}).default(48))
        .addOption(numberOption("--show <n>", "how many answers to show", {integer: true, min: 0}).default(4))
        .addOption(numberOption("--seed <n>", "seed of the choice of questions", {integer: true, min: 0}).default(1))
        .option("--json", "print one JSON object");
    addEmulationFlags(demo);
    // the embedded model is so small that a second thread waits more than it computes
    addModelFlags(demo, {threads: 1});
    demo.action(async (flags: DemoFlags) => {
        const {runDemo} = await import("./demo.js");
        await runDemo(flags);
    });

    const build = program.command("build")
        .description("Compile reattend's llama.cpp, as the installation does, or for a kind of GPU. Commands and getLlama() then use it.")
        // it has no default here: the script's own one is the installation's
        .addOption(optionalChoiceOption(
            "--gpu <type>", "what to compute with, false: only the CPU (default: as REATTEND_GPU says, else metal on Apple silicon, else false)", gpuTypes
        ))
        .option(
            "--portable",
            "for other machines, too: on x64 for processors with AVX2, FMA, F16C and BMI2 (Intel's since 2013, AMD's since 2015), " +
            "with --gpu cuda for all generations of GPUs, and where none is at hand"
        )
        .option("--debug", "without optimization, for a debugger")
        .addOption(numberOption("--jobs <n>", "compilers to run at a time (default: as cores and memory allow)", {integer: true, min: 1}));
    build.action(async (flags: BuildFlags) => {
        const {runBuild} = await import("./build.js");
        await runBuild(flags);
    });

    const serveRpc = program.command("serve-rpc")
        .description("Compute layers of models for other machines, until Ctrl-C. They name this one in getLlama({rpcServers: [...]}).")
        .option("--host <address>", "address to listen on; 0.0.0.0 stands for all of this machine's", "127.0.0.1")
        .addOption(numberOption("--port <n>", "port to listen on", {integer: true, min: 1, max: 65535}).default(50052))
        .addOption(gpuFlag())
        .addOption(numberOption("--threads <n>", "threads to compute with (default: physical cores)", {integer: true, min: 1}));
    serveRpc.action(async (flags: ServeRpcFlags) => {
        const {runServeRpc} = await import("./serveRpc.js");
        await runServeRpc(flags);
    });

    return program;
}
