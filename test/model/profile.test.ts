import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention, getLlama, loadProfile, LlamaLogLevel, ProfileError, saveProfile} from "reattend";
import type {AttentionProfile} from "reattend";
import {runCli} from "../support/cli.js";
import {writeFloat32Model} from "../support/float32Model.js";
import {evaluateInChunks} from "../support/logits.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext} from "../support/oracleModel.js";
import {writeRandomModel} from "../support/randomModel.js";
import {randomTokens} from "../support/tokens.js";

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const inFolder = (name: string) => path.join(folder, name);

await writeRandomModel(inFolder("other-shape.gguf"), {architecture: "llama", layers: 3, seed: 1});
await writeFloat32Model(oracleModelPath, inFolder("same-shape.gguf"));
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});

const context = await createContext();
const original = emulateAttention(context, {
    strength: 0.1, schedule: Array.from({length: 8}, (_, layer) => Float32Array.of(layer / 10, 0.4 - layer / 20)), pattern: "random", seed: 3
});
original.strength = 0.7;
const profile = original.createProfile({by: "hand"});
original.dispose();

test.after.always(async () => {
    await llama.dispose();
    await fs.rm(folder, {recursive: true});
});

test.serial("a profile that was saved does what the options did", async (t) => {
    const file = inFolder("profile.json");
    await saveProfile(file, profile);
    const loaded = await loadProfile(file);
    t.deepEqual(loaded, profile);
    t.deepEqual(loaded.found, {by: "hand"});
    t.is(loaded.model.layers, 8);
    t.is(loaded.model.heads, 2);
    t.is(loaded.options.strength, 0.7);
    t.false("kernel" in loaded.options);

    const evaluate = async (options: Parameters<typeof emulateAttention>[1]) => {
        const emulation = emulateAttention(context, options);
        const sequence = context.getSequence();
        const logits = await evaluateInChunks(sequence, randomTokens(70, 1), [70]);
        void sequence.dispose();
        emulation.dispose();
        return logits;
    };
    t.deepEqual(await evaluate(loaded), await evaluate({...loaded.options}));
});

test.serial("the model's hash is the same wherever the file lies", async (t) => {
    await fs.copyFile(oracleModelPath, inFolder("copy.gguf"));
    const model = await llama.loadModel({modelPath: inFolder("copy.gguf")});
    const copyContext = await model.createContext({contextSize: 64});
    t.notThrows(() => emulateAttention(copyContext, profile));
    await model.dispose();
});

test.serial("refused on other models; its options are taken where they fit", async (t) => {
    for (const [file, message] of [
        ["other-shape.gguf", /^The profile is for a model of 8 layers with 2 heads \(.*\), but this one has 3 layers with 4 heads$/],
        ["same-shape.gguf", /^The profile is for another model of the same shape \(.*\); to use it anyway, pass its options$/]
    ] as const) {
        const model = await llama.loadModel({modelPath: inFolder(file)});
        const otherContext = await model.createContext({contextSize: 64});
        t.throws(() => emulateAttention(otherContext, profile), {instanceOf: ProfileError, message});
        if (file === "same-shape.gguf")
            t.notThrows(() => emulateAttention(otherContext, profile.options));
        else
            t.throws(() => emulateAttention(otherContext, profile.options), {instanceOf: RangeError});
        await model.dispose();
    }
    t.notThrows(() => emulateAttention(context, profile).dispose());
});

const broken: Array<[name: string, change: (profile: Record<string, unknown>) => unknown, message: RegExp]> = [
    ["no object", () => [], /is no profile: its "format" is undefined, but must be "reattend-profile"$/],
    ["null", () => null, /is no profile: its "format" is undefined, but must be/],
    ["another format", (profile) => ({...profile, format: "x"}), /its "format" is "x", but must be/],
    ["a later version", (profile) => ({...profile, version: 2}), /is a profile of version 2; known is version 1$/],
    ["no model", (profile) => ({...profile, model: undefined}), /is no profile: it must have required property 'model'$/],
    ["an unknown field", (profile) => ({...profile, strength: 1}), /it must NOT have additional properties: strength$/],
    ["a strength too low", withOptions({strength: -2}), /options\.strength must be >= -1$/],
    ["a threshold of 0", withOptions({threshold: 0}), /options\.threshold must be > 0$/],
    ["an unknown pattern", withOptions({pattern: "late"}), /options\.pattern must be equal to one of the allowed values$/],
    ["a schedule of texts", withOptions({schedule: ["1"]}), /options\.schedule/],
    ["a hash of another kind", (profile) => ({...profile, model: {...profile.model as object, hash: "md5:1"}}), /model\.hash must match pattern/]
];
function withOptions(options: object) {
    return (profile: Record<string, unknown>) => ({...profile, options: {...profile.options as object, ...options}});
}
test.serial("nothing is saved that would not be read: a Date is an object, and text in JSON", async (t) => {
    const found = new Date(0) as unknown as Record<string, unknown>;
    await t.throwsAsync(saveProfile(inFolder("date.json"), {...profile, found}), {instanceOf: ProfileError, message: /found must be object/});
    await t.throwsAsync(fs.stat(inFolder("date.json")));
});

for (const [name, change, message] of broken) {
    test.serial(`refused: ${name}`, async (t) => {
        const wrong = change(profile) as AttentionProfile;
        const file = inFolder("broken.json");
        await fs.writeFile(file, JSON.stringify(wrong));
        const error = await t.throwsAsync(loadProfile(file), {instanceOf: ProfileError, message});
        t.true(error.message.startsWith(file));
        await t.throwsAsync(saveProfile(inFolder("not-there.json"), wrong), {instanceOf: ProfileError});
        await t.throwsAsync(fs.stat(inFolder("not-there.json")));
    });
}

test.serial("refused: a schedule of another length", async (t) => {
    const wrong = {...profile, options: {...profile.options, schedule: [1, 2]}};
    await saveProfile(inFolder("short.json"), wrong);
    t.throws(() => emulateAttention(context, wrong), {instanceOf: RangeError, message: /^schedule has 2 entries/});
});

test.serial("refused: no file, no JSON", async (t) => {
    await t.throwsAsync(loadProfile(inFolder("none.json")), {
        instanceOf: ProfileError, message: `cannot read the profile ${inFolder("none.json")}: there is no such file`
    });
    await fs.writeFile(inFolder("text.json"), "{");
    await t.throwsAsync(loadProfile(inFolder("text.json")), {instanceOf: ProfileError, message: /is no profile: it is not JSON/});
});

test.serial("a link to a profile stays one", async (t) => {
    await fs.writeFile(inFolder("linked.json"), "");
    await fs.symlink("linked.json", inFolder("link.json"));
    await saveProfile(inFolder("link.json"), profile);
    t.true((await fs.lstat(inFolder("link.json"))).isSymbolicLink());
    t.deepEqual(await loadProfile(inFolder("linked.json")), profile);
});

test.serial("a byte order mark before a profile is passed over; other encodings are refused", async (t) => {
    const marked = inFolder("marked.json");
    await fs.writeFile(marked, `\ufeff${JSON.stringify(profile)}`);
    t.deepEqual(await loadProfile(marked), profile);
    const {code, stderr} = await runCli(["complete", "a b c", "-n", "2", "--model", oracleModelPath, "--profile", marked]);
    t.is(code, 0, stderr);

    await fs.writeFile(inFolder("utf-16.json"), Buffer.from("\ufeff{}", "utf16le"));
    await t.throwsAsync(loadProfile(inFolder("utf-16.json")), {
        instanceOf: ProfileError, message: `cannot read the profile ${inFolder("utf-16.json")}: it is not text in UTF-8`
    });
});

test.serial("commands take profiles", async (t) => {
    const file = inFolder("profile.json");
    await saveProfile(file, profile);
    const complete = ["complete", "a b c", "-n", "2", "--json"];

    const right = await runCli([...complete, "--model", oracleModelPath, "--profile", file]);
    t.is(right.code, 0, right.stderr);
    const {emulation} = JSON.parse(right.stdout) as {emulation: {strength: number, pattern: string, seed: number}};
    t.is(emulation.strength, 0.7);
    t.is(emulation.pattern, "random");
    t.is(emulation.seed, 3);

    const other = await runCli([...complete, "--model", inFolder("same-shape.gguf"), "--profile", file]);
    t.is(other.code, 1);
    t.regex(other.stderr, /^reattend: The profile is for another model of the same shape \(.*\); to use it anyway, add --any-model\n$/);
    const anyway = await runCli([...complete, "--model", inFolder("same-shape.gguf"), "--profile", file, "--any-model"]);
    t.is(anyway.code, 0, anyway.stderr);

    const both = await runCli([...complete, "--profile", file, "--strength", "0.2"]);
    t.is(both.code, 2);
    t.regex(both.stderr, /'--profile <file>' cannot be used with option '-s, --strength <number>'/);
    const none = await runCli([...complete, "--profile", inFolder("none.json")]);
    t.is(none.code, 1);
    t.regex(none.stderr, /^reattend: cannot read the profile .*: there is no such file\n$/);
    t.is((await runCli([...complete, "--any-model"])).code, 2);
});
