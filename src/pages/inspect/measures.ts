import {digits, percent} from "../../numberText.js";
import type {MeasureName} from "./data.js";

export type Measure = {
    name: MeasureName,
    label: string,
    format: (value: number) => string,
    explanation: string
};

export const measures: readonly Measure[] = [
    {
        name: "entropy", label: "Entropy", format: (value) => `${digits(value)} nats`,
        explanation: "How evenly a query spreads its attention: 0 if all is on one token, the more the more tokens share it."
    }, {
        name: "firstTokenMass", label: "First token", format: percent,
        explanation: "The share of a query's attention that the text's first token gets, the attention sink."
    }, {
        name: "nonSemanticMass", label: "Non-semantic tokens", format: percent,
        explanation: "The share of a query's attention on special tokens, spaces, line breaks and punctuation."
    }, {
        name: "agreement", label: "Agreement with the source layer", format: percent,
        explanation: "The share of a query's attention on the tokens that the same head of the source layer looked at: the pattern."
    }, {
        name: "keysPerRow", label: "Keys above the threshold", format: (value) => `${digits(value)} keys`,
        explanation: "How many tokens a query gives more weight than the threshold, itself left out."
    }
];

export function measureOf(name: MeasureName): Measure {
    return measures.find((measure) => measure.name === name)!;
}
