#!/usr/bin/env node
// Prints the first token that the embedded model generates: first-token.js reattend|stock THREADS
import process from "node:process";
import {fileURLToPath} from "node:url";

const [, , engine, threads] = process.argv;
const {getLlama} = await import(engine === "stock" ? "node-llama-cpp" : "reattend");
const llama = await getLlama({
    gpu: false,
    maxThreads: Number(threads),
    logLevel: "error",
    ...(engine === "stock" ? {build: "never", skipDownload: true} : {})
});
const model = await llama.loadModel({modelPath: fileURLToPath(new URL("../../models/reattend-mini.gguf", import.meta.url))});
const context = await model.createContext({contextSize: 256});
const prompt = model.tokenize("Where people are: Max tower, Alice station.");
for await (const token of context.getSequence().evaluate(prompt, {temperature: 0})) {
    console.log(token);
    break;
}
await llama.dispose();
