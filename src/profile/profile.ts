import {createHash} from "node:crypto";
import fs from "node:fs/promises";
import {createRequire} from "node:module";
import {show} from "../emulation/show.js";
import {decodeText, whyUnreadable} from "../textFile.js";
import {writeWhole} from "../writeWhole.js";
import type {ValidateFunction} from "ajv";
import type {LlamaModel} from "node-llama-cpp";
import type {AttentionEmulationOptions, ResolvedAttentionEmulationOptions} from "../emulation/options.js";
import type {AttentionShape} from "../emulation/shape.js";

/**
 * How attention is emulated on a model, and how that was found: what a profile file holds. The file's JSON schema is
 * `reattend/profile.schema.json`.
 */
export type AttentionProfile = {
    readonly format: "reattend-profile",
    readonly version: 1,

    /** The model that it is for. On any other one it is refused. */
    readonly model: {
        readonly name: string,

        /** number of layers */
        readonly layers: number,

        /** largest number of query heads of any layer */
        readonly heads: number,

        /** SHA-256 of the metadata and the list of tensors in the GGUF file: see {@link hashOfModel} */
        readonly hash: string
    },

    /** All of `emulateAttention`'s options but the kernel, which is up to the machine. */
    readonly options: Omit<ResolvedAttentionEmulationOptions, "kernel" | "seed"> & {readonly seed?: number},

    /** How the options were found, such as data and results. Not used. */
    readonly found?: Readonly<Record<string, unknown>>
};

/** A profile is none, or is not for the model at hand: said in one sentence. */
export class ProfileError extends Error {
    override name = "ProfileError";
}

const format = "reattend-profile";
const version = 1;
const require = createRequire(import.meta.url);

/**
 * Reads a profile from a file.
 * @throws {ProfileError} if there is no such file, or it holds no profile of a version that is known
 * @example
 * await saveProfile("steady.json", emulateAttention(context, {strength: 0.4}).createProfile());
 * const profile = await loadProfile("steady.json");
 * console.log(profile.options.strength); // 0.4
 */
export async function loadProfile(file: string): Promise<AttentionProfile> {
    let text: string;
    try {
        text = decodeText(await fs.readFile(file));
    } catch (error) {
        throw cannotRead(file, error);
    }
    return parseProfile(text, file);
}

/**
 * Writes a profile to a file, as a whole or not at all.
 * @throws {ProfileError} if it is no profile
 * @throws the file system's error if it can't be written
 * @example
 * const emulation = emulateAttention(context, {pattern: "first-token", strength: 1});
 * await saveProfile("first-token.json", emulation.createProfile());
 */
export async function saveProfile(file: string, profile: AttentionProfile): Promise<void> {
    checkProfile(profile, "the profile");
    const text = JSON.stringify(profile, undefined, 4);
    parseProfile(text, "the profile"); // as it will be read: a Date, say, is an object that becomes text
    await writeWhole(file, `${text}\n`);
}

/** @throws {ProfileError} naming the file */
export function parseProfile(text: string, file: string): AttentionProfile {
    let value: unknown;
    try {
        value = JSON.parse(text);
    } catch (error) {
        throw new ProfileError(`${file} is no profile: it is not JSON: ${(error as Error).message}`, {cause: error});
    }
    checkProfile(value, file);
    return value;
}

export function cannotRead(file: string, error: unknown): ProfileError {
    return new ProfileError(`cannot read the profile ${file}: ${whyUnreadable(error)}`, {cause: error});
}

/** Whether something is meant as a profile, not as options: whether it is a right one is another question. */
export function isProfile(value: unknown): value is AttentionProfile {
    return value !== null && typeof value === "object" && Object.hasOwn(value, "format");
}

/** @throws {ProfileError} with what is wrong with it */
export function checkProfile(value: unknown, name: string): asserts value is AttentionProfile {
    const given = Object(value) as {format?: unknown, version?: unknown};
    if (given.format !== format)
        throw new ProfileError(`${name} is no profile: its "format" is ${show(given.format)}, but must be "${format}"`);
    if (given.version !== version)
        throw new ProfileError(`${name} is a profile of version ${show(given.version)}; known is version ${version}`);

    const validate = validator();
    if (!validate(value)) {
        const [error] = validate.errors ?? [];
        const place = error?.instancePath.slice(1).replaceAll("/", ".") ?? "";
        const extra = (error?.params as {additionalProperty?: string} | undefined)?.additionalProperty;
        throw new ProfileError(
            `${name} is no profile: ${place === "" ? "it" : place} ${error?.message ?? "is wrong"}${extra == null ? "" : `: ${extra}`}`
        );
    }
}

let validate: ValidateFunction | undefined;

/** Loaded when it is needed: most users never have a profile. */
function validator(): ValidateFunction {
    if (validate == null) {
        const {Ajv2020} = require("ajv/dist/2020.js") as typeof import("ajv/dist/2020.js");
        validate = new Ajv2020({allowUnionTypes: true}).compile(require("../../schemas/profile.schema.json") as object);
    }
    return validate;
}

/**
 * A profile's options, for the model that it was made for.
 * @throws {ProfileError} if it is no profile, or was made for another model
 */
export function optionsFor(profile: AttentionProfile, model: LlamaModel, shape: AttentionShape): AttentionEmulationOptions {
    checkProfile(profile, "The profile");
    const {layers, heads, name, hash} = profile.model;
    const anyway = "to use it anyway, pass its options";
    if (layers !== shape.layers || heads !== shape.heads)
        throw new ProfileError(
            `The profile is for a model of ${layers} layers with ${heads} heads (${name}), but this one has ` +
            `${shape.layers} layers with ${shape.heads} heads`
        );
    if (hash !== hashOfModel(model))
        throw new ProfileError(`The profile is for another model of the same shape (${name}); ${anyway}`);
    return profile.options;
}

/** @internal */
export function makeProfile(
    model: LlamaModel, shape: AttentionShape, resolved: ResolvedAttentionEmulationOptions, found?: AttentionProfile["found"]
): AttentionProfile {
    const {strength, threshold, sourceLayer, schedule, pattern, seed, normalize} = resolved;
    return {
        format,
        version,
        model: {
            name: (model.fileInfo.metadata.general as {name?: string}).name ?? model.filename ?? "",
            ...shape,
            hash: hashOfModel(model)
        },
        options: {strength, threshold, sourceLayer, schedule, pattern, seed, normalize},
        ...found == null ? {} : {found}
    };
}

const hashes = new WeakMap<LlamaModel, string>();

/**
 * SHA-256 of what a GGUF file says of its model: all metadata, the vocabulary included, and the names, shapes and types of all
 * tensors. Takes milliseconds where hashing tens of gigabytes of weights would take minutes, and is the same wherever the file
 * lies. So another quantisation of a model is another model, but a file that differs in nothing but the weights is not.
 */
export function hashOfModel(model: LlamaModel): string {
    let hash = hashes.get(model);
    if (hash == null) {
        const {metadata, fullTensorInfo} = model.fileInfo;
        const tensors = fullTensorInfo?.map(({name, dimensions, ggmlType}) => [name, dimensions.map(Number), ggmlType]);
        const text = JSON.stringify([metadata, tensors], (_key, value: unknown) => (
            typeof value === "bigint"
                ? String(value)
                : value
        ));
        hash = `sha256:${createHash("sha256").update(text).digest("hex")}`;
        hashes.set(model, hash);
    }
    return hash;
}
