import {emulateAttention} from "reattend";
import {createContext} from "./oracleModel.js";
import {randomTokens} from "./tokens.js";
import type {Token} from "reattend";

/** A few tokens of the oracle's model under emulation, the same ones at each call. */
export async function generateTokens(): Promise<Token[]> {
    const context = await createContext({threads: 2});
    emulateAttention(context, {strength: 0.5});
    const generated: Token[] = [];
    for await (const token of context.getSequence().evaluate(randomTokens(30, 1) as Token[], {temperature: 0, yieldEogToken: true})) {
        generated.push(token);
        if (generated.length === 5)
            break;
    }
    await context.dispose();
    return generated;
}
