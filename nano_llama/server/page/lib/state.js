// What a link holds: the state of the page in the URL's hash, so that a teacher's link shows what the teacher saw.
// Tests: tests/page/test_page.py.

// name -> [default, least, most, step of its slider]
export const NUMBERS = {
    temperature: [0.8, 0, 2, 0.05], top_k: [0, 0, 100, 1], top_p: [1, 0.01, 1, 0.01], min_p: [0, 0, 1, 0.01],
    repetition_penalty: [1, 0.5, 2, 0.05], presence_penalty: [0, -2, 2, 0.1], frequency_penalty: [0, -2, 2, 0.1],
    max_tokens: [48, 1, 1024, 1], seed: [1, 0, 2 ** 53 - 1, 1], at: [-1, -1, 100000, 1],
    // views 4 to 6; -1: not chosen
    place: [-1, -1, 100000, 1], row: [-1, -1, 1000, 1], layer: [-1, -1, 1000, 1], head: [0, 0, 1000, 1], word: [-1, -1, 2 ** 31, 1], against: [-1, -1, 2 ** 31, 1],
};
const TEXTS = { mode: "", view: "alternatives", prompt: "", system: "", path: "", form: "", rule: "", pins: "" };
const WHOLE = ["top_k", "max_tokens", "seed", "at", "place", "row", "layer", "head", "word", "against"];
export const SAMPLING = [
    "temperature", "min_p", "top_k", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
];

/** The state that a hash describes; what it does not say, or says wrongly, has its default. */
export function parse(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, "")), state = { run: given.has("run") };
    for (const [name, fallback] of Object.entries(TEXTS)) state[name] = given.get(name) ?? fallback;
    for (const name of Object.keys(NUMBERS)) state[name] = toNumber(name, given.get(name));
    return state;
}

/** A number in its range, from what was typed. */
export function toNumber(name, text) {
    const [fallback, least, most] = NUMBERS[name];
    const value = text === null || text === "" ? NaN : Number(text);
    if (!Number.isFinite(value)) return fallback;
    return Math.min(most, Math.max(least, WHOLE.includes(name) ? Math.round(value) : value));
}

/** The hash of a state: only what differs from the defaults. */
export function format(state) {
    const said = new URLSearchParams();
    for (const [name, fallback] of Object.entries(TEXTS)) if (state[name] !== fallback) said.set(name, state[name]);
    for (const [name, [fallback]] of Object.entries(NUMBERS)) if (state[name] !== fallback) said.set(name, state[name]);
    if (state.run) said.set("run", "1");
    return said.toString();
}

/** The sampling fields of a request. */
export function samplingOf(state) {
    return Object.fromEntries(SAMPLING.map((name) => [name, state[name]]));
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
