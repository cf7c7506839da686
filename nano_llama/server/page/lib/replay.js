// What views 4 to 6 and 11 share: the text that Volume 1 reads again, its answer and the lines of it that ran, and the
// engine's own numbers beside it. Tests: tests/page/test_replayed.py, tests/page/test_volumes.py.

import { ask, askAgain, askBytes } from "./api.js";
import { answering, fill, h, hint, percent, visible } from "./dom.js";
import { inspect } from "./run.js";

const ARRAYS = { int32: Int32Array, float32: Float32Array, float64: Float64Array, uint8: Uint8Array, float16: Uint16Array };
const KEPT = 12; // answers
const AT_ONCE = 1000; // ids whose texts are asked for
const SAID = /("""[\s\S]*?"""|#.*)/; // what a function says to its reader
const answers = new Map(), names = new Map(); // by body; by id
let known = null; // GET /inspect/source, asked for once
let running = null; // a page asks for one replay at a time: the next one stops it

/**
 * What the server computes again, of which it does one at a time: waits(text) is called while it does so for somebody
 * else. The same question is asked once. Throws AbortError when something else was wanted first.
 */
export function recomputed(path, body, waits, how) {
    const key = path + JSON.stringify(body);
    if (answers.has(key)) return Promise.resolve(answers.get(key));
    if (running?.key === key) return running.promise;
    running?.stopper.abort();
    const mine = (running = { key, stopper: new AbortController() });
    const waiting = () => waits("The server computes for somebody else; this one comes next …");
    mine.promise = askAgain(path, body, mine.stopper.signal, waiting, how).then((answer) => {
        if (answers.size >= KEPT) answers.delete(answers.keys().next().value);
        answers.set(key, answer);
        return answer;
    }).finally(() => {
        if (running === mine) running = null;
    });
    return mine.promise;
}

/** What Volume 1 answers: the length of its head, the head, and the arrays that it describes. -> the head, with each
    array as {data, shape} under its name */
function unpacked(buffer) {
    const length = new DataView(buffer).getUint32(0, true), start = 4 + length;
    const made = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    for (const { name, dtype, shape, offset } of made.arrays) {
        const data = new ARRAYS[dtype](buffer, start + offset, shape.reduce((size, n) => size * n, 1));
        made[name] = { data: dtype === "float16" ? Float32Array.from(data, half) : data, shape };
    }
    return made;
}

/** The number that 16 bits say. */
function half(bits) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
}

/** The tokens' names, as the page shows them. -> (id) => text */
export async function named(ids) {
    const unknown = [...new Set(ids)].filter((id) => !names.has(id));
    for (let at = 0; at < unknown.length; at += AT_ONCE) {
        const { tokens } = await ask("/inspect/tokens", { tokens: unknown.slice(at, at + AT_ONCE) });
        for (const { id, text, bytes } of tokens) {
            const seen = text !== null && !/^[\p{C}\p{Z}]*$/u.test(visible(text)); // else: a part of a character, or nothing to see
            names.set(id, seen ? visible(text) : `‹${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}›`);
        }
    }
    return (id) => names.get(id);
}

/** What the engine itself gives a token after these ids: {p, logit}; null where it is not among the likeliest. */
export async function byEngine(ids, token) {
    const { top, logsumexp } = await inspect({ prompt: ids }), at = top.ids.indexOf(token);
    return at < 0 ? null : { logit: top.logits[at], p: Math.exp(top.logits[at] - logsumexp) };
}

/** The ids of the likeliest tokens after these, to the engine. */
export async function likeliest(ids) {
    return (await inspect({ prompt: ids })).top.ids;
}

/**
 * The ids of a text, and the place that is looked at: the token there read all before it and said what came next.
 * -> {ids, place} or {none: why there is nothing to see}
 */
export function readBy(run, at, limits) {
    if (!run?.tokens.length) return { none: "Write something: Volume 1 reads it again, and here you see what happens inside the model." };
    if (run.running) return { none: "When the text has ended, Volume 1 reads it again." };
    const ids = run.idsBefore(run.tokens.length), place = run.tokens[at] ? run.promptIds.length + at - 1 : ids.length - 1;
    if (place >= limits.replayed) return { none: `Volume 1 replays at most ${limits.replayed} tokens, and this one is number ${place + 1}. ${run.promptIds.length > limits.replayed ? "Shorten the prompt" : "Open an earlier one"}.` };
    return { ids: ids.slice(0, limits.replayed), place };
}

/** A view of what Volume 1 replays: a lead, its parts (empty elements), and the lines that ran.
    Its read() fills the parts, from `before`: the ids up to the place that is looked at, after which `next` was written. */
export class Replayed extends HTMLElement {
    show({ run, at, store, info }) {
        const { ids, place, none } = readBy(run, at, info.limits), { lead, parts, lines } = this.constructor;
        this.asked = this.drawn = null;
        if (none) return fill(this, hint(none));
        Object.assign(this, { store, info, ids, place, before: ids.slice(0, place + 1), next: ids[place + 1] });
        this.parts = Object.fromEntries(parts.map((name) => [name, h("div")]));
        fill(this, h("p", {}, lead), Object.values(this.parts), source(lines));
        return this.read();
    }

    /** draw(still, ask): ask(body) replays, unless another question comes after this one; place: the name of a part. */
    answering(place, draw) {
        return answering(this, this.parts[place], "Volume 1 reads the text again, layer by layer …",
            (still, waits) => draw(still, (body) => still(recomputed("/inspect/replay", body, waits, (...asked) => askBytes(...asked).then(unpacked)))));
    }
}

/** Who computed what is shown. more: what the engine says beside it. */
export function computed({ seconds }, ...more) {
    return h("p", { class: "hint by" }, `Recomputed by Volume 1, in float32 from the model's file, in ${seconds.toFixed(2)} s; the engine that serves may round more. `, ...more);
}

/** "The engine's own p of X here: 12.3 %". */
export function ownP(name, engine) {
    return ["The engine's own p of ", h("b", { class: "chip" }, name), ": ", h("span", { class: "engine" }, engine ? percent(engine.p) : "not among its likeliest"), "."];
}

/** names: stages of /inspect/source, in the order to show. Folded away; fetched when it is opened. */
export function source(names, title = "The lines of Volume 1 that computed this") {
    const body = h("div"), made = h("details", { class: "source" }, h("summary", {}, title), body);
    made.addEventListener("toggle", () => made.open && answering(made, body, "The server is asked …", async (still) => {
        const { stages } = (known ??= await still(ask("/inspect/source")));
        fill(body, names.map((name) => lines(stages.find((stage) => stage.name === name))));
    }));
    return made;
}

function lines({ name, function: title, file, line, code }) {
    return h("figure", { "data-stage": name },
        h("figcaption", {}, h("code", {}, `${file}, line ${line}`)),
        h("pre", { tabindex: 0, role: "region", "aria-label": title }, code.split(SAID).map((part, at) => (at % 2 ? h("span", {}, part) : part))));
}
