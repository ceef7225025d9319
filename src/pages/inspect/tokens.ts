import {percent, signed} from "../../numberText.js";
import {quotedToken} from "../../visibleText.js";
import type {InspectionData, Pair} from "./data.js";

export function tokenName(data: InspectionData, token: number): string {
    return `“${quotedToken(data.source.tokens.texts[token]!)}”, token ${token}`;
}

export function describeWeights({plain, steered}: Pair): string {
    return `plain ${weight(plain)}, steered ${weight(steered)}, difference ${weightDifference({plain, steered})}`;
}

/** Weights that are not among the kept ones of their row are unknown, but smaller than those. */
export function weight(value: number): string {
    return Number.isNaN(value)
        ? "not kept"
        : percent(value);
}

export function weightDifference({plain, steered}: Pair): string {
    return signed(weight(steered - plain).replace("not kept", "–"));
}

export function describeReceived(data: InspectionData, layer: number, head: number, token: number): string[] {
    const {plain, steered} = data.receivedByAt(layer, head, token);
    const queries = data.tokenCount - 1 - token;
    return [
        `receives on average: ${describeWeights(data.receivedAt(layer, head, token))}`,
        `above the threshold for ${plain} queries plain, ${steered} steered, of ${Math.max(queries, 0)} after it`
    ];
}
