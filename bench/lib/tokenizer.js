/**
 * The least that llama.cpp takes for a tokenizer: special tokens, one token per byte, and words that mean nothing.
 * @param {import("./gguf-writer.js").GgufWriter} writer
 * @param {number} vocabulary number of tokens
 */
export function addTokenizer(writer, vocabulary) {
    const [normal, unknown, control, byte] = [1, 2, 3, 6];
    const bytes = Array.from({length: 256}, (_, value) => `<0x${value.toString(16).toUpperCase().padStart(2, "0")}>`);
    const special = ["<unk>", "<s>", "</s>"];
    const space = "▁";
    const words = Array.from(
        {length: vocabulary - special.length - bytes.length},
        (_, index) => index === 0 ? space : `${space}w${index.toString(36)}`
    );

    writer
        .addMetadata("tokenizer.ggml.model", "string", "llama")
        .addMetadata("tokenizer.ggml.tokens", "string", [...special, ...bytes, ...words])
        .addMetadata("tokenizer.ggml.scores", "float32", [...special, ...bytes, ...words].map((_, index) => -index))
        .addMetadata("tokenizer.ggml.token_type", "int32", [
            unknown, control, control, ...bytes.map(() => byte), ...words.map(() => normal)
        ])
        .addMetadata("tokenizer.ggml.unknown_token_id", "uint32", 0)
        .addMetadata("tokenizer.ggml.bos_token_id", "uint32", 1)
        .addMetadata("tokenizer.ggml.eos_token_id", "uint32", 2)
        .addMetadata("tokenizer.ggml.add_bos_token", "bool", true);
}
