/** Text in UTF-8, without the mark that some programs begin it with. Throws where it is not UTF-8. */
export function decodeText(bytes: Uint8Array): string {
    return new TextDecoder("utf-8", {fatal: true}).decode(bytes);
}

/** Why a text could not be read, as the end of a sentence. */
export function whyUnreadable(error: unknown): string {
    const {code, message} = error as NodeJS.ErrnoException;
    return {
        ENOENT: "there is no such file",
        EISDIR: "it is a folder",
        EACCES: "permission denied",
        ERR_ENCODING_INVALID_ENCODED_DATA: "it is not text in UTF-8"
    }[code ?? ""] ?? message;
}
