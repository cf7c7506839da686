// What views 4 to 6 share: the text that Volume 1 reads again, its answer, and the engine's own numbers beside it.
// Tests: tests/page/test_replayed.py.

import { ask, askAgain, askBytes } from "./api.js";
import { h } from "./dom.js";
import { inspect } from "./run.js";
import { percent, visible } from "./text.js";

const ARRAYS = { int32: Int32Array, float32: Float32Array, float64: Float64Array, uint8: Uint8Array, float16: Uint16Array };
const KEPT = 12; // answers
const AT_ONCE = 1000; // ids whose texts are asked for
const answers = new Map(), names = new Map(); // by body; by id
let running = null; // a page asks for one replay at a time: the next one stops it

/**
 * What Volume 1 answers: its head, and each array as {data, shape} under its name. waiting: is called while the server
 * replays for somebody else. Throws AbortError when another replay was wanted first.
 */
export function replay(body, waiting = () => {}) {
    const key = JSON.stringify(body);
    if (answers.has(key)) return Promise.resolve(answers.get(key));
    if (running?.key === key) return running.promise;
    running?.stopper.abort();
    const mine = (running = { key, stopper: new AbortController() });
    mine.promise = askAgain("/inspect/replay", body, mine.stopper.signal, waiting, askBytes).then((buffer) => {
        if (answers.size >= KEPT) answers.delete(answers.keys().next().value);
        answers.set(key, unpacked(buffer));
        return answers.get(key);
    }).finally(() => {
        if (running === mine) running = null;
    });
    return mine.promise;
}

/** The length of a head, the head, and the arrays that it describes. */
export function unpacked(buffer) {
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
 * -> {ids, place} or {hint: why there is nothing to see}
 */
export function readBy(run, at, limits) {
    if (!run?.tokens.length) return { hint: "Write something: Volume 1 then reads it again, and shows what happens inside the model." };
    if (run.running) return { hint: "When the text has ended, Volume 1 reads it again." };
    const ids = run.idsBefore(run.tokens.length), place = run.tokens[at] ? run.promptIds.length + at - 1 : ids.length - 1;
    if (place >= limits.replayed) return { hint: `Volume 1 replays at most ${limits.replayed} tokens, and this one is number ${place + 1}. Open an earlier one.` };
    return { ids: ids.slice(0, limits.replayed), place };
}

/** Who computed what is shown. more: what the engine says beside it. */
export function computed({ seconds }, ...more) {
    return h("p", { class: "hint by" }, `Recomputed by Volume 1, in float32 from the model's file, in ${seconds.toFixed(seconds < 1 ? 2 : 1)} s; the engine that serves may round more. `, ...more);
}

/** "The engine's own p of X here: 12.3 %". */
export function ownP(name, engine) {
    return ["The engine's own p of ", h("b", { class: "chip" }, name), ": ", h("span", { class: "engine" }, engine ? percent(engine.p) : "not among its likeliest"), "."];
}

/**
 * Draw what a question answers into a view, unless another question comes after it; say what went wrong.
 * draw(still, waiting): `await still(promise)` ends it once the view asks something else.
 */
export async function answering(view, place, draw) {
    const asked = (view.asked = {}), waits = h("p", { class: "hint", role: "status" }, "Volume 1 reads the text again, layer by layer …");
    const timer = setTimeout(() => place.prepend(waits), 150);
    view.setAttribute("aria-busy", "true");
    const still = async (promise) => {
        const answer = await promise;
        if (view.asked !== asked) throw new DOMException("Something else is looked at.", "AbortError");
        return answer;
    };
    try {
        await draw(still, () => (waits.textContent = "The server replays for somebody else; this one comes next …"));
    } catch (error) {
        if (error.name !== "AbortError" && view.asked === asked) place.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
    }
    clearTimeout(timer);
    waits.remove();
    if (view.asked === asked) view.removeAttribute("aria-busy");
}
