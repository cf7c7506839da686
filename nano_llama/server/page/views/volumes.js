// <nl-volumes>: three volumes, one number. The logit of a token by the engine that serves, by Volume 1 and by Volume 2, how
// far the engine's distribution is from Volume 1's, and the lines that computed it. View 11. Tests: tests/page/test_volumes.py.

import { answering, count, fill, h, head, hint, nameOf, percent, rove, s, table, twin } from "../lib/dom.js";
import { readBy, recomputed, source } from "../lib/replay.js";

const NAMES = { engine: "The engine, Volume 3", volume1: "Volume 1, NumPy", volume2: "Volume 2, PyTorch" };
const DIGITS = 6; // after the point: about as many as float32 has
const STAGES = ["embedding", "layers", "rmsnorm", "attention_block", "linear", "rope", "attention", "softmax", "mlp", "swiglu", "logits"];

class Volumes extends HTMLElement {
    show({ run, at, info, store }) {
        this.store = store;
        const place = run?.tokens[at] ? at : run?.tokens.length - 1, { none } = readBy(run, place, info.limits);
        this.asked = null;
        if (none) return fill(this, hint(none));
        const body = { tokens: run.idsBefore(place), token: run.tokens[place].id };
        return answering(this, this, "Volumes 1 and 2 read the text again, layer by layer …",
            async (still, waits) => this.draw(await still(recomputed("/inspect/volumes", body, waits)), body.token));
    }

    draw(answer, token) {
        const { ids, texts, volumes } = answer, names = texts.map(nameOf);
        const number = h("div", { "aria-live": "polite" });
        const show = (id) => fill(number, this.number(answer, ids.indexOf(id), names[ids.indexOf(id)])), { word } = this.store.state;
        const choose = (i) => (this.store.set({ word: ids[i] }), show(ids[i]));
        show(ids.includes(word) ? word : token);
        const others = Object.keys(volumes).filter((name) => name !== answer.reference);
        const columns = ["token", "id", ...Object.keys(volumes).map((name) => NAMES[name])];
        const rows = ids.map((id, i) => [names[i], id, ...Object.values(volumes).map(({ logits }) => logits[i].toFixed(DIGITS))]);
        fill(this,
            h("p", {}, "The same model, written three times. By its logit each program says how likely it finds a token; digits that agree with Volume 1's are bold."),
            number,
            others.map((name) => this.verdict(name, volumes[name], volumes[answer.reference], names, ids)),
            this.differences(answer, others, names, choose),
            twin(table("The logits of the likeliest tokens", columns, rows)),
            this.by(answer, others),
            source(STAGES, "The lines of Volume 1 that computed its number, in the order of the forward pass"));
    }

    /** One token's logit, by each. */
    number({ volumes, reference, position }, i, name) {
        const expected = volumes[reference].logits[i];
        return h("table", { class: "number-by" },
            h("caption", {}, "The logit of ", h("b", { class: "chip" }, name), ` at position ${count(position)}`),
            head(["program", "logit", "probability"], (at) => at > 0),
            h("tbody", {}, Object.entries(volumes).map(([volume, { logits, logsumexp }]) => h("tr", { "data-volume": volume },
                h("th", { scope: "row" }, NAMES[volume]), h("td", { class: "number big" }, digits(logits[i], expected)), h("td", { class: "number" }, percent(Math.exp(logits[i] - logsumexp)))))));
    }

    /** How far one program's distribution is from Volume 1's. */
    verdict(volume, { kl, choice, largest_difference: largest }, reference, names, ids) {
        const same = choice === reference.choice, other = names[ids.indexOf(choice)] ?? `token ${choice}`;
        return h("p", { "data-kl": kl, "data-volume": volume },
            h("b", {}, NAMES[volume]), ` differs by at most ${small(largest)} over all tokens; as a distribution it is `, h("b", {}, `${small(Math.max(0, kl))} nats`), " (KL) from Volume 1's. ",
            same ? "Its likeliest token is the same." : `Its likeliest token is another one: ${other}.`);
    }

    /** Per token, each program's logit less Volume 1's, as bars to the left and right of 0. */
    differences({ ids, volumes, reference }, others, names, choose) {
        const less = (name, i) => volumes[name].logits[i] - volumes[reference].logits[i];
        const most = Math.max(...others.flatMap((name) => ids.map((_, i) => Math.abs(less(name, i))))) || 1;
        const bar = (name, i) => {
            const d = less(name, i), wide = (50 * Math.abs(d)) / most;
            return h("td", { "data-less": d }, h("div", { class: "bar" }, s("svg", { width: "100%", height: 16, "aria-hidden": true },
                s("rect", { class: name, x: `${d < 0 ? 50 - wide : 50}%`, y: 2, width: `${wide}%`, height: 12 }), s("line", { x1: "50%", x2: "50%", y1: 0, y2: 16 })),
                h("small", {}, signed(d))));
        };
        const made = h("table", { class: "less" },
            h("caption", {}, `Logit less Volume 1's; a full bar is ${small(most)}. Choose a token to see its number above.`),
            head(["token", ...others.map((name) => NAMES[name])]),
            h("tbody", {}, ids.map((id, i) => h("tr", { "data-id": id },
                h("td", {}, h("button", { class: "chip", tabindex: i ? -1 : 0, onclick: () => choose(i) }, names[i])), others.map((name) => bar(name, i))))));
        rove(made, "button");
        return made;
    }

    /** Who computed what, in which numbers. */
    by({ numbers: { engine }, seconds }, others) {
        const kinds = engine.weights.length ? `, which holds weights as ${engine.weights.join(", ")}` : "", cache = engine.kv_cache ? ` and keys and values as ${engine.kv_cache}` : "";
        const times = Object.entries(seconds).map(([name, taken]) => `${NAMES[name]} (${taken.toFixed(2)} s)`).join(" and ");
        return h("p", { class: "hint by" }, `The engine's numbers are those that it serves, from its ${engine.runner}${kinds}${cache}. Recomputed in float32 from the model's file: ${times}.`,
            others.length < 2 && " Volume 2 takes part where torch is installed.");
    }
}

/** A number, in which the digits that agree with another's are set apart. */
function digits(x, expected) {
    const text = x.toFixed(DIGITS), other = expected.toFixed(DIGITS);
    let end = 0;
    while (end < text.length && text[end] === other[end]) end++;
    return [h("span", { class: "same" }, text.slice(0, end)), h("span", { class: "rest" }, text.slice(end))];
}

/** 0.00031 -> "0.00031", 3.1e-8 -> "3.1 × 10⁻⁸" */
function small(x) {
    if (x === 0 || x >= 1e-4) return x === 0 ? "0" : x >= 100 ? x.toFixed(0) : x.toPrecision(2);
    const [digits, power] = x.toExponential(1).split("e-");
    return `${digits} × 10⁻${[...power].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
}

function signed(x) {
    return x === 0 ? "0" : `${x < 0 ? "−" : "+"}${small(Math.abs(x))}`;
}

customElements.define("nl-volumes", Volumes);
