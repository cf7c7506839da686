// <nl-settings>: the sliders of sampling. All of them on the page show and change the one state.
// Tests: tests/page/test_page.py.

import { h } from "../lib/dom.js";
import { NUMBERS, toNumber } from "../lib/state.js";

const LABELS = {
    temperature: ["temperature", "0: always the likeliest"],
    top_k: ["top-k", "0: off"],
    top_p: ["top-p", "1: off"],
    min_p: ["min-p", "0: off"],
    repetition_penalty: ["repetition penalty", "1: off"],
    presence_penalty: ["presence penalty", "0: off"],
    frequency_penalty: ["frequency penalty", "0: off"],
    max_tokens: ["tokens at most", ""],
    seed: ["seed", "the same seed: the same text"],
};

export class Settings extends HTMLElement {
    /** names: the settings to show, in their order. */
    show(store, names) {
        this.inputs = new Map();
        this.replaceChildren(...names.map((name) => this.row(store, name)));
        const refresh = () => {
            for (const [name, inputs] of this.inputs) for (const input of inputs) if (Number(input.value) !== store.state[name] || input.value === "") input.value = store.state[name];
        };
        store.addEventListener("change", refresh);
        refresh();
    }

    row(store, name) {
        const [label, hint] = LABELS[name], [, least, most, step] = NUMBERS[name];
        const change = (event) => store.set({ [name]: toNumber(name, event.target.value) });
        const number = h("input", { type: "number", min: least, max: most, step: name === "seed" ? 1 : "any", "aria-label": label, onchange: change });
        const slider = name === "seed" ? null : h("input", { type: "range", min: least, max: most, step, "aria-label": `${label}, slider`, oninput: change });
        const roll = () => store.set({ seed: Math.floor(Math.random() * 1e6) });
        this.inputs.set(name, slider ? [number, slider] : [number]);
        return h("div", { class: "setting" },
            h("span", { class: "label" }, label, hint && h("small", {}, hint)),
            slider ?? h("button", { type: "button", onclick: roll }, "Another seed"), number);
    }
}

customElements.define("nl-settings", Settings);
