export * from "node-llama-cpp";
export {getLlama} from "./getLlama.js";
export type {LlamaOptions} from "./getLlama.js";
export {emulateAttention} from "./emulation/emulateAttention.js";
export type {AttentionEmulation} from "./emulation/AttentionEmulation.js";
export type {AttentionEmulationTarget} from "./emulation/emulateAttention.js";
export type {AttentionEmulationOptions, ResolvedAttentionEmulationOptions} from "./emulation/options.js";
export type {AttentionEmulationLayer, AttentionEmulationReport} from "./emulation/report.js";
export type {Schedule as AttentionEmulationSchedule} from "./emulation/schedule.js";
