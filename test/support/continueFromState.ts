// Goes on from a sequence's saved state in a process of its own: node continueFromState.js MODEL STATE STRENGTH TOKENS
// writes the logits of each token, as 32-bit floating point numbers, to standard output.
import process from "node:process";
import {emulateAttention, getLlama, LlamaLogLevel} from "reattend";
import {evaluateInChunks} from "./logits.js";
import {clearThreshold} from "./randomModel.js";

const [modelPath, statePath, strength, tokens] = process.argv.slice(2) as [string, string, string, string];
const llama = await getLlama({gpu: false, maxThreads: 2, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath});
const context = await model.createContext({sequences: 2, contextSize: 512, batchSize: 150, threads: 1, flashAttention: true});
emulateAttention(context, {strength: Number(strength), threshold: clearThreshold});

const sequence = context.getSequence();
await sequence.loadStateFromFile(statePath, {acceptRisk: true});
const logits = await evaluateInChunks(sequence, JSON.parse(tokens) as number[], [10]);
process.stdout.write(Buffer.concat(logits.map(({buffer}) => Buffer.from(buffer))), () => process.exit());
