import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention} from "reattend";
import {seededRandom} from "#dist/random.js";
import {writeFloat32Model} from "../support/float32Model.js";
import {compareWithReference} from "../support/formula.js";
import {evaluateInChunks} from "../support/logits.js";
import {allowedNmse, worstNmse} from "../support/nmse.js";
import {oracleModelPath} from "../support/oracle.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {ReferenceLlama} from "../support/ReferenceLlama.js";
import {randomTokens} from "../support/tokens.js";

/*
 * What the authors' code doesn't do, against a reference in 64-bit arithmetic.
 */

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));

const float32Path = path.join(folder, "float32.gguf");
await writeFloat32Model(oracleModelPath, float32Path);
const float32Model = await oracleModel.llama.loadModel({modelPath: float32Path});
const reference = await ReferenceLlama.read(oracleModelPath);
const models = {reference, float32Model, model: oracleModel};

const random = seededRandom(1);
const gainPerLayer = Array.from({length: reference.layerCount}, () => 2 * random() - 0.5);
const gainPerHead = Array.from({length: reference.layerCount}, () => (
    Array.from({length: reference.headCount}, () => 2 * random() - 0.5)
));

// hooks and tests are declared together, after whatever had to be waited for
test.after.always(() => fs.rm(folder, {recursive: true}));

type Case = Parameters<typeof compareWithReference>[1]["options"];

const cases: Array<[name: string, options: Case]> = [
    ["normalized", {strength: 1, normalize: true}],
    ["turned down", {strength: -0.7}],
    ["turned down, normalized", {strength: -0.99, schedule: "constant", normalize: true}],
    ["turned off entirely", {strength: -1, schedule: "constant"}],
    ["turned off entirely, normalized", {strength: -1, schedule: "constant", normalize: true}],
    ["source layer 3", {strength: 1, sourceLayer: 3}],
    ["last possible source layer", {strength: 1, schedule: "constant", sourceLayer: 6}],
    ["constant", {strength: 0.5, schedule: "constant"}],
    ["a gain for each layer", {strength: 0.8, schedule: gainPerLayer}],
    ["a gain for each head", {strength: 0.8, schedule: gainPerHead}],
    ["a gain for each head, normalized", {strength: 0.8, schedule: gainPerHead, normalize: true}],
    ["a gain for each head, all keys", {strength: 0.5, schedule: gainPerHead, pattern: "all"}],
    ["as many keys at random", {strength: 1, pattern: "random"}],
    ["as many keys at random, with a seed", {strength: 1, pattern: "random", seed: 4e9, sourceLayer: 2}],
    ["as many keys at random, normalized", {strength: 1, pattern: "random", normalize: true, thresholdNear: 0.05}],
    ["the first token", {strength: 1, pattern: "first-token"}],
    ["the first token, a gain for each head, normalized", {strength: 0.9, pattern: "first-token", schedule: gainPerHead, normalize: true}],
    ["the first token, down, normalized", {strength: -0.9, pattern: "first-token", schedule: "constant", sourceLayer: 1, normalize: true}],
    ["few keys", {strength: 1, thresholdNear: 0.1}],
    ["hardly any key", {strength: 2, thresholdNear: 0.4}],
    ["most keys", {strength: 1, thresholdNear: 0.0005}],
    ["everything at once", {strength: -0.6, thresholdNear: 0.03, sourceLayer: 2, schedule: gainPerHead, normalize: true}]
];
for (const [name, options] of cases) {
    test.serial(name, async (t) => {
        // more than 64 tokens at once are attended in tiles, fewer in one chunk
        await compareWithReference(t, {...models, tokens: randomTokens(100, 2), options, chunks: [80, 1, 9]});
    });
}

const longCases: Array<[name: string, options: Case]> = [
    ["550 tokens", {strength: 0.3, thresholdNear: 0.1}],
    ["550 tokens, as many keys at random", {strength: 0.6, thresholdNear: 0.1, pattern: "random", seed: 1}],
    ["550 tokens, the first token", {strength: 3, thresholdNear: 0.1, pattern: "first-token"}],
    ["550 tokens, normalized", {strength: 0.3, thresholdNear: 0.1, sourceLayer: 1, normalize: true}]
];
for (const [name, options] of longCases) {
    test.serial(name, async (t) => {
        // a single token that attends to more than 512 keys has them split among threads
        await compareWithReference(t, {...models, tokens: randomTokens(550, 2), options, chunks: [480, 1, 35]});
    });
}

test.serial("all keys, normalized, is the plain model", async (t) => {
    const tokens = randomTokens(100, 3);
    const context = await createContext();
    emulateAttention(context, {strength: 1, pattern: "all", normalize: true});
    t.true(worstNmse(await evaluateInChunks(context.getSequence(), tokens, [64]), reference.logits(tokens)) <= allowedNmse);
    await context.dispose();
});
