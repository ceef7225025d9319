import {openReply} from "./conversation.js";
import {prepareChoice} from "./logLikelihood.js";
import type {ChatWrapper, LlamaModel} from "node-llama-cpp";
import type {ChoiceItem} from "./item.js";
import type {PreparedChoice} from "./logLikelihood.js";
import type {ChoiceTask, Way} from "./tasks.js";

export type PreparedItem = PreparedChoice & {
    item: ChoiceItem,

    /** what may follow the prompt, without the space before it: its length is what `acc_norm` divides by */
    optionTexts: string[]
};

/**
 * An item as a task asks for it, ready for `scoreChoices`.
 * @param chatWrapper - `undefined`: no chat template
 */
export function prepareItem(
    item: ChoiceItem,
    {model, task, way, chatWrapper, examples}: {
        model: LlamaModel, task: ChoiceTask, way: Exclude<Way, "generation">, chatWrapper: ChatWrapper | undefined,
        examples?: readonly ChoiceItem[]
    }
): PreparedItem {
    const {message, opening, separator, options} = task.prompt(item, way, examples);
    const {text} = openReply(message, {opening, separator, chatWrapper});
    return {item, optionTexts: options.map((option) => option.slice(1)), ...prepareChoice(model, text, options)};
}
