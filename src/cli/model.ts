import fs from "node:fs/promises";
import process from "node:process";
import {emulateAttention, getLlama, LlamaLogLevel, ProfileError, resolveChatWrapper} from "../index.js";
import {Failure, UsageError} from "./failure.js";
import {embeddedModelPath} from "./flags.js";
import {checkGpu, chooseGpu} from "./gpu.js";
import {startProgress} from "./progress.js";
import type {AttentionEmulation, AttentionEmulationOptions, AttentionProfile, ChatWrapper, LlamaContext, LlamaModel} from "../index.js";
import type {ModelFlags} from "./flags.js";

export type OpenModel = Disposable & {
    model: LlamaModel,
    context: LlamaContext
};

type Disposable = {[Symbol.asyncDispose](): Promise<void>};

/** Loads the model that the flags name and makes a context for it. What goes wrong is said in one sentence. */
export async function openModel(flags: ModelFlags, contextSize: number | undefined = flags.contextSize): Promise<OpenModel> {
    return await open(flags, async (model) => ({
        model,
        context: await model.createContext({contextSize, threads: flags.threads, flashAttention: flags.flashAttention})
    }));
}

/** Loads the model that the flags name, for contexts that are made later. */
export async function openModelOnly(flags: ModelFlags): Promise<Omit<OpenModel, "context">> {
    return await open(flags, (model) => Promise.resolve({model}));
}

async function open<T extends object>(flags: ModelFlags, use: (model: LlamaModel) => Promise<T>): Promise<T & Disposable> {
    checkCacheTypes(flags);
    await checkFile(flags.model);

    using progress = startProgress("loading the model");
    const problems: string[] = [];
    const llama = await getLlama({
        gpu: chooseGpu(flags.gpu),
        maxThreads: flags.threads,
        logLevel: flags.debug ? LlamaLogLevel.debug : LlamaLogLevel.error,
        logger: (level, message) => {
            if (level === LlamaLogLevel.error || level === LlamaLogLevel.fatal)
                problems.push(message.trim());
            if (flags.debug)
                process.stderr.write(`${message.trimEnd()}\n`);
        }
    });
    try {
        const devices = await llama.getGpuDeviceNames();
        checkGpu(flags.gpu, devices);
        checkGpuLayers(flags, devices);
        const model = await llama.loadModel({
            modelPath: flags.model,
            gpuLayers: flags.gpuLayers,
            experimentalDefaultContextKvCacheKeyType: ggmlType(flags.cacheTypeK),
            experimentalDefaultContextKvCacheValueType: ggmlType(flags.cacheTypeV),
            onLoadProgress: (fraction) => {
                progress.text = `loading the model: ${Math.floor(fraction * 100)} %`;
            }
        });
        return {...await use(model), [Symbol.asyncDispose]: () => llama.dispose()};
    } catch (error) {
        await llama.dispose();
        throw error instanceof Failure
            ? error
            : new Failure(describeLoadFailure(flags.model, oneLine(problems[0] ?? messageOf(error))), {cause: error});
    }
}

/** llama.cpp keeps quantised values only where flash attention reads them. */
function checkCacheTypes({cacheTypeV, flashAttention}: ModelFlags): void {
    if (!flashAttention && !["f16", "f32", "bf16"].includes(cacheTypeV))
        throw new UsageError(`--cache-type-v is "${cacheTypeV}"; allowed with --no-flash-attention are f16, f32 and bf16`);
}

function ggmlType(name: ModelFlags["cacheTypeK"]) {
    return name.toUpperCase() as Uppercase<typeof name>;
}

function checkGpuLayers({gpuLayers = 0}: ModelFlags, devices: readonly string[]): void {
    if (gpuLayers > 0 && devices.length === 0)
        throw new Failure(`--gpu-layers is ${gpuLayers}, but there is no GPU to compute with`);
}

/** `emulateAttention`, with an option that is not allowed on this model reported as the flag that it came from. */
export function startEmulation(context: LlamaContext, options: AttentionEmulationOptions | AttentionProfile): AttentionEmulation {
    try {
        return emulateAttention(context, options);
    } catch (error) {
        if (error instanceof ProfileError)
            throw new Failure(messageOf(error).replace("pass its options", "add --any-model"), {cause: error});
        reportAsFlag(error, Object.keys(options));
    }
}

/** Throws an error about one of the options as bad usage of the flag that it came from, and any other as it is. */
export function reportAsFlag(error: unknown, options: readonly string[]): never {
    const [, option = ""] = /^(\w+) /.exec(messageOf(error)) ?? [];
    if (!options.includes(option))
        throw error;

    const flag = `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw new UsageError(messageOf(error).replace(option, flag), {cause: error});
}

/**
 * How a conversation becomes text. node-llama-cpp looks which of its own wrappers does what the template in the file does,
 * which takes a second or so; the embedded model's template is known to be taken as it is.
 */
export function chatWrapperFor(model: LlamaModel, file: string): ChatWrapper {
    return resolveChatWrapper(model, file === embeddedModelPath ? {type: "jinjaTemplate"} : undefined);
}

/** GGUF begins with its magic number, its version, and the counts of tensors and of metadata. */
const headerBytes = 4 + 4 + 8 + 8;

/** Finds what is wrong with a file before llama.cpp does, which has no words for some of it. */
async function checkFile(file: string): Promise<void> {
    const stats = await fs.stat(file).catch(() => undefined); // what can't be read is found below
    if (stats != null && !stats.isFile() && !stats.isDirectory())
        throw new Failure(`cannot read ${file}: it is no file but a device, a pipe or a socket`);

    let header: Buffer;
    try {
        const handle = await fs.open(file);
        try {
            const {buffer, bytesRead} = await handle.read(Buffer.alloc(headerBytes), 0, headerBytes, 0);
            header = buffer.subarray(0, bytesRead);
        } finally {
            await handle.close();
        }
    } catch (error) {
        const {code} = error as NodeJS.ErrnoException;
        if (code === "ENOENT" && file === embeddedModelPath)
            throw new Failure("the embedded model is missing from this installation; name a GGUF file with --model", {cause: error});
        throw new Failure(`cannot read ${file}: ${reasons[code ?? ""] ?? messageOf(error)}`, {cause: error});
    }

    if (header.toString("latin1", 0, 4) !== "GGUF")
        throw new Failure(`${file} is not a GGUF file`);
    if (header.length < headerBytes)
        throw new Failure(`${file} is truncated or damaged: it ends in its header`);
}

function describeLoadFailure(file: string, message: string): string {
    if (/^A context size of /.test(message))
        return message;
    return /failed to read|not within the file bounds/.test(message)
        ? `${file} is truncated or damaged: ${message}`
        : `cannot load ${file}: ${message}`;
}

const reasons: Record<string, string | undefined> = {
    ENOENT: "there is no such file",
    EISDIR: "it is a folder",
    EACCES: "permission denied"
};

function messageOf(error: unknown): string {
    return error instanceof Error
        ? error.message
        : String(error);
}

function oneLine(text: string): string {
    return text.replace(/\s+/g, " ").trim();
}
