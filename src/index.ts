export * from "node-llama-cpp";
export {getLlama} from "./getLlama.js";
