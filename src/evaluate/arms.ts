import {emulateAttention} from "../emulation/emulateAttention.js";
import type {LlamaContext} from "node-llama-cpp";
import type {AttentionEmulation} from "../emulation/AttentionEmulation.js";
import type {AttentionEmulationOptions} from "../emulation/options.js";
import type {AttentionProfile} from "../profile/profile.js";

/** One of the ways that a model is evaluated in. */
export type Arm = {
    name: string,

    /** `undefined`: the model as it is */
    emulation: AttentionEmulationOptions | AttentionProfile | undefined
};

/** The model or the context doesn't allow an arm: said in one sentence. */
export class ArmError extends Error {
    override name = "ArmError";
}

/** Does something on a context under an arm's emulation, and leaves the context without one. */
export async function underArm<T>(context: LlamaContext, arm: Arm, use: () => Promise<T>): Promise<T> {
    const emulation = startArm(context, arm);
    try {
        return await use();
    } finally {
        emulation?.dispose();
    }
}

/**
 * An arm that can't be used is found out before anything is computed.
 * @throws {ArmError} naming the arm
 */
export function checkArms(context: LlamaContext, arms: readonly Arm[]): void {
    for (const arm of arms) {
        try {
            startArm(context, arm)?.dispose();
        } catch (error) {
            throw new ArmError(`the arm ${arm.name}: ${(error as Error).message}`, {cause: error});
        }
    }
}

function startArm(context: LlamaContext, {emulation}: Arm): AttentionEmulation | undefined {
    return emulation == null
        ? undefined
        : emulateAttention(context, emulation);
}

/** The arms that have names, in the order that they are listed in. */
export const armNames = ["plain", "early-layer", "all", "random", "first-token", "first-token-up", "first-token-down"] as const;

type ArmName = typeof armNames[number];

export const plainArm: Arm = {name: "plain", emulation: undefined};

/**
 * The arms that a name stands for, one for each strength.
 *
 * `first-token` stands for two: the first token's weight turned up and down in all layers alike, and rows normalised again,
 * which is ZeroTuning's lever. The others differ in the pattern only, so that a difference between them is the pattern's.
 * @param method - what all patterns share
 */
export function namedArms(name: ArmName, strengths: readonly number[], method: AttentionEmulationOptions): Arm[] {
    switch (name) {
        case "plain":
            return [plainArm];
        case "first-token":
            return [...namedArms("first-token-up", strengths, method), ...namedArms("first-token-down", strengths, method)];
        case "first-token-up":
        case "first-token-down": {
            const lever = {...method, pattern: "first-token", schedule: "constant", normalize: true} as const;
            // no weight can be turned down by more than all of it
            const amounts = strengths.map((strength) => Math.min(Math.abs(strength), name === "first-token-up" ? Infinity : 1));
            return [...new Set(amounts)].map((amount) => ({
                name: nameOf(name, amount, strengths),
                emulation: {...lever, strength: name === "first-token-up" ? amount : -amount}
            }));
        }
        default:
            return strengths.map((strength) => ({
                name: nameOf(name, strength, strengths),
                emulation: {...method, pattern: name, strength}
            }));
    }
}

function nameOf(name: ArmName, strength: number, strengths: readonly number[]): string {
    return strengths.length === 1
        ? name
        : `${name}@${strength}`;
}

export function isArmName(name: string): name is ArmName {
    return (armNames as readonly string[]).includes(name);
}
