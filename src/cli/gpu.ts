import {gpuFromEnvironment} from "../chooseBuild.js";
import {Failure} from "./failure.js";
import type {LlamaGpuType} from "node-llama-cpp";
import type {GpuFlag} from "./flags.js";

/** The flag `--gpu` as `getLlama` has it; without the flag the environment counts. */
export function chooseGpu(flag: GpuFlag | undefined): "auto" | LlamaGpuType {
    return flag == null
        ? gpuFromEnvironment()
        : flag === "false"
            ? false
            : flag;
}

/** A GPU that was asked for must be there; llama.cpp goes on without. */
export function checkGpu(flag: GpuFlag | undefined, devices: readonly string[]): void {
    const gpu = chooseGpu(flag);
    if (gpu !== "auto" && gpu !== false && devices.length === 0)
        throw new Failure(`${flag == null ? "NODE_LLAMA_CPP_GPU" : "--gpu"} is ${gpu}, but llama.cpp finds no device for it here`);
}
