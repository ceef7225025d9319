import {emulateAttention} from "../emulation/emulateAttention.js";
import type {LlamaContext} from "node-llama-cpp";
import type {AttentionEmulationOptions} from "../emulation/options.js";

/** One of the ways that a model is evaluated in. */
export type Arm = {
    name: string,

    /** `undefined`: the model as it is */
    emulation: AttentionEmulationOptions | undefined
};

/** Does something on a context under an arm's emulation, and leaves the context without one. */
export async function underArm<T>(context: LlamaContext, {emulation: options}: Arm, use: () => Promise<T>): Promise<T> {
    const emulation = options == null
        ? undefined
        : emulateAttention(context, options);
    try {
        return await use();
    } finally {
        emulation?.dispose();
    }
}
