import {LlamaText} from "node-llama-cpp";
import type {ChatHistoryItem, ChatWrapper} from "node-llama-cpp";

/** A text that a model goes on with, and what tells that it has come to an end. */
export type OpenReply = {
    text: string | LlamaText,
    stopTriggers: LlamaText[]
};

/**
 * A user's message and the beginning of the reply, as the chat template wants them; without a template, one behind the other.
 * @param opening - how the reply begins
 * @param separator - between the two, where there is no template
 */
export function openReply(
    message: string, {opening = "", separator, chatWrapper}: {opening?: string, separator: string, chatWrapper: ChatWrapper | undefined}
): OpenReply {
    if (chatWrapper == null)
        return {text: message + separator + opening, stopTriggers: []};

    const chatHistory: ChatHistoryItem[] = [{type: "user", text: message}, {type: "model", response: opening === "" ? [] : [opening]}];
    const {contextText, stopGenerationTriggers} = chatWrapper.generateContextState({chatHistory});
    return {text: contextText, stopTriggers: stopGenerationTriggers};
}
