// What a link holds: the state of the page in the URL's hash, so that a teacher's link shows what the teacher saw.
// <nl-settings>: its sliders of sampling; all of them on the page show and change the one state.
// Tests: tests/page/test_page.py.

import { fill, h } from "./dom.js";

// name -> [default, least, most, step of its slider]
const NUMBERS = {
    temperature: [0.8, 0, 2, 0.05], top_k: [0, 0, 100, 1], top_p: [1, 0.01, 1, 0.01], min_p: [0, 0, 1, 0.01],
    repetition_penalty: [1, 0.5, 2, 0.05], presence_penalty: [0, -2, 2, 0.1], frequency_penalty: [0, -2, 2, 0.1],
    max_tokens: [0, 0, 1024, 1], seed: [1, 0, 2 ** 53 - 1, 1], at: [-1, -1, 100000, 1],
    // what is chosen in a view (-1: nothing): a token of the text that is read, a word of the vocabulary; of a recording, a step and a block
    place: [-1, -1, 100000, 1], step: [-1, -1, 1e9, 1], block: [-1, -1, 1e9, 1], text: [-1, -1, 1000, 1], row: [-1, -1, 1000, 1], layer: [-1, -1, 1000, 1], head: [0, 0, 1000, 1], word: [-1, -1, 2 ** 31, 1], against: [-1, -1, 2 ** 31, 1],
};
// said: the turns before the prompt, as JSON; path: the branches, as grow() of main.js says them
const TEXTS = { mode: "", view: "alternatives", said: "", prompt: "", system: "", path: "", form: "", rule: "", pins: "" };
const BROKEN = ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"];
const RULES = ["choice", "regex", "json", "grammar"];
export const SAMPLING = [
    "temperature", "min_p", "top_k", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
];

/** The state that a hash describes; what it does not say, or says wrongly, has its default. written: the sampling of the
    text, where a slider has been moved since. */
export function parse(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, "")), state = { run: given.has("run") };
    for (const [name, fallback] of Object.entries(TEXTS)) state[name] = given.get(name) ?? fallback;
    for (const name of Object.keys(NUMBERS)) state[name] = toNumber(name, given.get(name));
    const written = new URLSearchParams(given.get("written") ?? "");
    state.written = Object.fromEntries(SAMPLING.map((name) => [name, written.has(name) ? toNumber(name, written.get(name)) : state[name]]));
    return state;
}

/** A number in its range, from what was typed. */
function toNumber(name, text) {
    const [fallback, least, most] = NUMBERS[name];
    const value = text === null || text === "" ? NaN : Number(text);
    if (!Number.isFinite(value)) return fallback;
    return Math.min(most, Math.max(least, BROKEN.includes(name) ? value : Math.round(value)));
}

/** The hash of a state: only what differs from the defaults. */
function format(state) {
    const said = new URLSearchParams();
    for (const [name, fallback] of Object.entries(TEXTS)) if (state[name] !== fallback) said.set(name, state[name]);
    for (const [name, [fallback]] of Object.entries(NUMBERS)) if (state[name] !== fallback) said.set(name, state[name]);
    if (state.run) {
        said.set("run", "1");
        const moved = SAMPLING.filter((name) => state.written[name] !== state[name]);
        if (moved.length) said.set("written", new URLSearchParams(moved.map((name) => [name, state.written[name]])));
    }
    return said.toString();
}

/** The sampling fields of a request. */
export function samplingOf(state) {
    return Object.fromEntries(SAMPLING.map((name) => [name, state[name]]));
}

/** The fields of a request under the rule of a state. */
export function constraintOf({ form, rule }) {
    if (!RULES.includes(form) || !rule) return {};
    return { structured_outputs: { [form]: form === "choice" ? rule.split("\n").filter(Boolean) : rule } };
}

/** The state, and who listens to it ("change"). */
export class Store extends EventTarget {
    constructor(hash) {
        super();
        this.state = parse(hash);
    }

    set(changes) {
        Object.assign(this.state, changes);
        history.replaceState(null, "", `#${format(this.state)}`);
        this.dispatchEvent(new Event("change"));
    }
}

const LABELS = {
    temperature: ["temperature", "0: always the likeliest"],
    top_k: ["top-k", "0: off"],
    top_p: ["top-p", "1: off"],
    min_p: ["min-p", "0: off"],
    repetition_penalty: ["repetition penalty", "1: off"],
    presence_penalty: ["presence penalty", "0: off"],
    frequency_penalty: ["frequency penalty", "0: off"],
    max_tokens: ["tokens at most", "0: to the answer's end"],
    seed: ["seed", "the same seed: the same text"],
};

class Settings extends HTMLElement {
    /** names: the settings to show, in their order; usual: what stands for 0 where one of them cannot be 0. */
    show(store, names, usual = {}) {
        this.inputs = new Map();
        fill(this, names.map((name) => this.row(store, name, usual[name])));
        const refresh = () => {
            for (const [name, inputs] of this.inputs) {
                const value = store.state[name] || (usual[name] ?? 0);
                for (const input of inputs) if (Number(input.value) !== value || input.value === "") input.value = value;
            }
        };
        store.addEventListener("change", refresh);
        refresh();
    }

    row(store, name, usual) {
        const [label, hint] = LABELS[name], [, lowest, most, step] = NUMBERS[name], least = usual ? 1 : lowest;
        const change = (event) => store.set({ [name]: toNumber(name, event.target.value) });
        const number = h("input", { type: "number", min: least, max: most, step: name === "seed" ? 1 : "any", "aria-label": label, onchange: change });
        const slider = name === "seed" ? null : h("input", { type: "range", min: least, max: most, step, "aria-label": `${label}, slider`, oninput: change });
        const roll = () => store.set({ seed: Math.floor(Math.random() * 1e6) });
        this.inputs.set(name, slider ? [number, slider] : [number]);
        return h("div", { class: "setting" },
            h("span", { class: "label" }, label, hint && !usual && h("small", {}, hint)),
            slider ?? h("button", { type: "button", onclick: roll }, "Another seed"), number);
    }
}

customElements.define("nl-settings", Settings);
