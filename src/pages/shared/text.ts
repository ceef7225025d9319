/**
 * A token's text so that every character of it can be seen and none has an effect on what stands around it: controls, marks of direction
 * and what is left of a broken character appear as a code.
 */
export function visibleText(text: string): string {
    return text
        .replaceAll("\n", "↵")
        .replaceAll("\t", "⇥")
        .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (character) => (
            `⟨${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}⟩`
        ));
}

/** As `visibleText`, with spaces that can be seen at both ends, for where a token stands alone. */
export function quotedToken(text: string): string {
    return text === ""
        ? "(empty)"
        : visibleText(text).replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
}
