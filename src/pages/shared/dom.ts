type Attributes = Record<string, string | number | boolean | undefined>;
type Child = Node | string | undefined;

/**
 * Makes an element. Strings become text, never markup; an attribute that is `true` is there without a value, one that is `false` or
 * `undefined` is not.
 */
export function element<Name extends keyof HTMLElementTagNameMap>(
    name: Name, attributes: Attributes = {}, ...children: Child[]
): HTMLElementTagNameMap[Name] {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        if (value !== undefined && value !== false)
            made.setAttribute(key, value === true ? "" : String(value));
    }
    made.append(...children.filter((child) => child !== undefined));
    return made;
}

export type Choice<Value extends string> = {
    value: Value,
    label: string
};

/** A labelled list to choose from. */
export function choiceList<Value extends string>(
    label: string, choices: ReadonlyArray<Choice<Value>>, chosen: Value, onChoice: (value: Value) => void
): {field: HTMLElement, select: HTMLSelectElement} {
    const id = `choice-${label.replace(/\W/g, "-")}`;
    const select = element("select", {id},
        ...choices.map(({value, label}) => element("option", {value, selected: value === chosen}, label)));
    select.addEventListener("change", () => onChoice(select.value as Value));
    return {field: element("span", {class: "field"}, element("label", {for: id}, label), select), select};
}

/** A row of buttons of which one is pressed: radio buttons, for the keyboard and for screen readers. */
export function choiceButtons<Value extends string>(
    label: string, choices: ReadonlyArray<Choice<Value>>, chosen: Value, onChoice: (value: Value) => void
): HTMLElement {
    const name = `choice-${label.replace(/\W/g, "-")}`;
    return element("fieldset", {class: "choice"}, element("legend", {}, label),
        ...choices.map(({value, label}) => {
            const input = element("input", {type: "radio", name, value, checked: value === chosen});
            input.addEventListener("change", () => onChoice(value));
            return element("label", {}, input, element("span", {}, label));
        }));
}
