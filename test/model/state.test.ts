import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention} from "reattend";
import {addonContextOf, bindingOf} from "#dist/binding.js";
import {evaluateInChunks} from "../support/logits.js";
import {createContext, oracleModel} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";

/*
 * What a context keeps is not touched by emulation: files of its state, erased and shifted tokens, graphs that are used again.
 */

const tokens = randomTokens(150, 11);
const [start, rest] = [tokens.slice(0, 100), tokens.slice(100)];

test.serial("an evaluation goes on from a saved state as if it had not stopped", async (t) => {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
    const [withEmulation, without] = ["with", "without"].map((name) => path.join(folder, name)) as [string, string];

    const context = await createContext({sequences: 2});
    const emulation = emulateAttention(context, {strength: 0.7});
    const sequence = context.getSequence();
    await evaluateInChunks(sequence, start, [64, 36]);
    const {fileSize} = await sequence.saveStateToFile(withEmulation);
    const expected = await evaluateInChunks(sequence, rest, [10]);

    const loaded = context.getSequence();
    await loaded.loadStateFromFile(withEmulation, {acceptRisk: true});
    t.deepEqual(await evaluateInChunks(loaded, rest, [10]), expected);

    emulation.dispose();
    await loaded.clearHistory();
    await evaluateInChunks(loaded, start, [64, 36]);
    t.is((await loaded.saveStateToFile(without)).fileSize, fileSize);

    await context.dispose();
    await fs.rm(folder, {recursive: true});
});

test.serial("tokens that were erased leave no trace", async (t) => {
    const context = await createContext();
    emulateAttention(context, {strength: 0.7});
    const sequence = context.getSequence();
    await evaluateInChunks(sequence, start, [100]);
    const expected = await evaluateInChunks(sequence, rest, [10]);

    await sequence.eraseContextTokenRanges([{start: 100, end: sequence.nextTokenIndex}]);
    await evaluateInChunks(sequence, randomTokens(20, 12), [7]);
    await sequence.eraseContextTokenRanges([{start: 100, end: sequence.nextTokenIndex}]);
    t.deepEqual(await evaluateInChunks(sequence, rest, [10]), expected);
    await context.dispose();
});

test.serial("a context that is full shifts as it does without emulation", async (t) => {
    const many = randomTokens(400, 13);
    const logitsWith = async (strength?: number) => {
        const context = await createContext();
        if (strength != null)
            emulateAttention(context, {strength});
        const sequence = context.getSequence();
        const logits = await evaluateInChunks(sequence, many, [200]);
        t.true(sequence.nextTokenIndex < many.length, "nothing was shifted");
        await context.dispose();
        return logits;
    };

    const plain = await logitsWith();
    t.deepEqual(await logitsWith(0), plain);

    const emulated = await logitsWith(0.5);
    t.notDeepEqual(emulated, plain);
    t.true(emulated.every((logits) => logits.every(Number.isFinite)));
});

test.serial("a change of strength rebuilds no graph", async (t) => {
    const {AddonAttentionEmulation} = bindingOf(oracleModel.llama);
    const reusedGraphs = async (changeStrength: boolean) => {
        const context = await createContext();
        const emulation = emulateAttention(context, {strength: 0.5});
        const sequence = context.getSequence();
        for (const [i, token] of start.entries()) {
            if (changeStrength) {
                emulation.strength = i % 10 / 10; // 0 too
                emulation.setSequenceStrength(sequence, i % 3 === 0 ? undefined : i / 100);
            }
            await evaluateInChunks(sequence, [token]);
        }
        const reused = new AddonAttentionEmulation!(addonContextOf(context)).getReusedGraphs();
        await context.dispose();
        return reused;
    };

    const reused = await reusedGraphs(false);
    t.log(`${reused} of ${start.length} graphs were reused`);
    t.true(reused > 0.9 * start.length);
    t.is(await reusedGraphs(true), reused);
});
