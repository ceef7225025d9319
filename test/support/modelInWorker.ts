/** A worker thread that has a model of its own: generates some tokens, or, with `forever`, evaluates until it is terminated. */
import {parentPort, workerData} from "node:worker_threads";
import {generateTokens} from "./generateTokens.js";
import {createContext} from "./oracleModel.js";
import {randomTokens} from "./tokens.js";
import type {Token} from "reattend";

if (workerData === "forever") {
    const sequence = (await createContext({threads: 2})).getSequence();
    parentPort!.postMessage("begins");
    for (;;) {
        await sequence.clearHistory();
        await sequence.evaluateWithoutGeneratingNewTokens(randomTokens(200, 1) as Token[]);
    }
}
parentPort!.postMessage(await generateTokens());
