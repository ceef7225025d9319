import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "ava";
import {emulateAttention} from "reattend";
import {evaluateInChunks} from "../support/logits.js";
import {oracleModelPath} from "../support/oracle.js";
import {oracleModel} from "../support/oracleModel.js";
import {randomTokens} from "../support/tokens.js";

const folder = await fs.mkdtemp(path.join(os.tmpdir(), "reattend-"));
const file = await fs.readFile(oracleModelPath);
const broken: Array<[name: string, content: Uint8Array | string | undefined]> = [
    ["missing", undefined],
    ["empty", ""],
    ["no GGUF", "This is the text of a file that has never been a model.\n".repeat(100)],
    ["cut off in its magic number", file.subarray(0, 3)],
    ["cut off in its metadata", file.subarray(0, 1000)],
    ["cut off in its weights", file.subarray(0, file.length / 2)],
    ["cut off at its very end", file.subarray(0, file.length - 1)]
];

test.after.always(() => fs.rm(folder, {recursive: true}));

for (const [index, [name, content]] of broken.entries()) {
    test.serial(`a model file that is ${name} gives an error, and the next model loads`, async (t) => {
        const modelPath = path.join(folder, `${index}.gguf`);
        if (content != null)
            await fs.writeFile(modelPath, content);

        const error = await t.throwsAsync(oracleModel.llama.loadModel({modelPath}), {instanceOf: Error});
        t.log(error.message);
        t.true(error.message.length > 0);

        const model = await oracleModel.llama.loadModel({modelPath: oracleModelPath});
        const context = await model.createContext({contextSize: 256, threads: 1});
        emulateAttention(context);
        t.is((await evaluateInChunks(context.getSequence(), randomTokens(10, 15), [10])).length, 10);
        await model.dispose();
    });
}
