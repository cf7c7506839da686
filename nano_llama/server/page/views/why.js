// <nl-why>: why this token. The real distribution, what each setting cuts off it, and the draw as a needle on a bar.
// The sliders recompute here, at once; then the server computes the same over its whole vocabulary. View 2.
// Tests: tests/page/test_why.py.

import { fill, h, hint, many, nameOf, percent, s, table, twin } from "../lib/dom.js";
import { inspect } from "../lib/run.js";
import { SAMPLING, samplingOf } from "../lib/state.js";

const MASK = 0xffffffffn;
const SAYS = {
    model: "what the model itself thinks",
    constraint: "only what the grammar allows",
    min_tokens: "not the end yet",
    penalties: "tokens that were there already change",
    temperature: "logits divided: below 1 sharper, above 1 flatter",
    min_p: "only tokens at least this share of the likeliest",
    top_k: "only so many of the likeliest",
    top_p: "only the likeliest that hold this mass",
};
const PAUSE = 250; // ms without a change until the server is asked
const LISTED = 24; // rows of the table

class Why extends HTMLElement {
    connectedCallback() {
        if (this.picture) return;
        this.intro = h("p");
        this.picture = h("div", { class: "steps" });
        this.verdict = h("p", { role: "status" });
        this.twin = h("div");
        this.sliders = h("nl-settings");
        fill(this, this.intro, this.picture, this.verdict, this.sliders, this.twin);
    }

    async show({ run, at, store }) {
        if (!this.listening) {
            this.listening = true;
            this.sliders.show(store, SAMPLING);
            store.addEventListener("change", () => !this.closest("[hidden]") && this.current && this.recompute());
        }
        const token = run?.tokens[at];
        for (const part of [this.picture, this.verdict, this.sliders, this.twin]) part.hidden = !token;
        this.current = null;
        if (!token) return void (this.intro.textContent = "Choose a token of a text: here you see why the sampler took it.");
        fill(this.intro, "Why ", h("b", { class: "chip" }, nameOf(token.text)), token.picked ? "? You chose it; the sampler would have drawn:" : "? A width is a probability. From top to bottom:");
        this.current = { run, at, token, store };
        await this.confirm();
    }

    /** At once, from the logits that are here. */
    recompute() {
        const { answer, run, at, store } = this.current, settings = samplingOf(store.state), body = run.inspection(at, settings);
        if (answer) this.draw(answer, estimated(answer, settings, body.prompt, body.output), uniform(settings.seed, answer.position), settings, null);
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.confirm(), PAUSE);
    }

    /** By the server, over all tokens. */
    async confirm() {
        const { current } = this;
        if (!current) return;
        const settings = samplingOf(current.store.state);
        try {
            const answer = (current.answer = await inspect(current.run.inspection(current.at, settings)));
            const asked = JSON.stringify(samplingOf(current.store.state)) === JSON.stringify(settings);
            if (current === this.current && asked) this.draw(answer, confirmed(answer, settings.temperature), answer.draw.u, settings, answer.draw);
        } catch (error) {
            if (current === this.current) this.verdict.textContent = error.message;
        }
    }

    draw({ top }, made, u, settings, drawn) {
        const last = made.at(-1).p, { parts, hit } = drawn ? serverBar(top, drawn) : bar(top.ids, last, u ?? 0);
        const chosen = drawn ? top.ids.indexOf(drawn.token) : parts[hit].i;
        const name = nameOf(drawn ? drawn.text : top.texts[chosen]);
        const rows = made.map((one) => this.step(one, top, chosen, settings));
        rows.push(this.needle(parts, top, u, chosen, settings));
        fill(this.picture, rows);
        this.picture.dataset.by = drawn ? "server" : "page";
        this.picture.dataset.token = drawn ? drawn.token : top.ids[chosen];
        const same = (drawn ? drawn.token : top.ids[chosen]) === this.current.token.id;
        const drawing = u === null || settings.temperature === 0 ? "it is the likeliest" : `seed ${settings.seed} gives ${u.toFixed(4)} at this place, which falls on its ${percent(drawn ? drawn.p : last[chosen])} of the bar`;
        fill(this.verdict, h("b", { class: "chip" }, name), ` ${same ? "stands in the text" : "would come, not what stands in the text"}: ${drawing}. `,
            h("small", {}, drawn ? "Confirmed by the server over its whole vocabulary." : `Computed in this page from the ${top.ids.length} likeliest tokens; the server is asked …`));
        const listed = last.map((_, i) => i).slice(0, LISTED);
        if (chosen >= LISTED) listed.push(chosen);
        const columns = ["token", "id", ...made.map(titleOf)];
        const numbers = listed.map((i) => [nameOf(top.texts[i]), top.ids[i], ...made.map((one) => (one.p[i] ? percent(one.p[i]) : "cut"))]);
        fill(this.twin, twin(table("Probability after each step", columns, numbers, (at) => ({ class: listed[at] === chosen ? "chosen" : null })), this.twin));
    }

    /** One step: a bar of all the mass, likeliest tokens first. */
    step({ name, says, p, left, kept }, top, chosen, settings) {
        let end = 0;
        const order = p.map((_, i) => i).filter((i) => p[i] > 0).sort((a, b) => p[b] - p[a]);
        const parts = order.map((i) => ({ i, from: end, to: (end += p[i]) }));
        const gone = kept < 0.99995 ? `, ${percent(1 - kept)} of the mass cut` : "";
        const remark = left === null ? gone.slice(2) : `${many(left, "token")}${gone}`;
        const set = name in settings ? ` ${settings[name]}` : "", title = titleOf({ name }) + set;
        return h("div", { class: "step" },
            h("div", { class: "line" }, h("b", {}, title), h("small", {}, says), h("small", { class: "right" }, remark)),
            strip(parts, top, chosen, `${title}: ${says}. ${remark}`));
    }

    needle(parts, top, u, chosen, settings) {
        if (u === null || settings.temperature === 0) return hint("Temperature 0: nothing is drawn, the likeliest token is taken.");
        const made = strip(parts, top, chosen, `The draw: ${u.toFixed(4)} falls on ${chosen < 0 ? "a token outside the list" : nameOf(top.texts[chosen])}`);
        made.classList.add("drawn");
        made.append(s("g", { class: "needle" }, s("line", { x1: `${100 * u}%`, x2: `${100 * u}%`, y1: 0, y2: 38 })));
        return h("div", { class: "step" },
            h("div", { class: "line" }, h("b", {}, "draw"), h("small", {}, "the bar again, tokens by ascending id; the needle is the seed's number"), h("small", { class: "right" }, `u = ${u.toFixed(4)}`)), made);
    }
}

/** The bar as the server has it: what lies between the listed tokens belongs to others. */
function serverBar(top, drawn) {
    const parts = top.ids.map((_, i) => i).filter((i) => top.p[i] > 0).sort((a, b) => top.ids[a] - top.ids[b])
        .map((i) => ({ i, from: top.from[i], to: top.from[i] + top.p[i] }));
    return { parts, hit: parts.findIndex((part) => top.ids[part.i] === drawn.token) };
}

/** A bar from 0 to 1. parts narrower than a third of a percent are left to the ground's colour. */
function strip(parts, top, chosen, label) {
    const shown = parts.filter(({ i, from, to }) => to - from > 0.0033 || i === chosen);
    return s("svg", { class: "strip", role: "img", "aria-label": label, width: "100%", height: 30 },
        s("rect", { class: "rest", width: "100%", height: 30 }),
        shown.map(({ i, from, to }, place) => {
            const wide = to - from, text = nameOf(top.texts[i]);
            return s("svg", { x: `${100 * from}%`, width: `${100 * wide}%`, height: 30 },
                s("rect", { class: i === chosen ? "part chosen" : place % 2 ? "part odd" : "part", width: "100%", height: 30 }, s("title", {}, `${text} ${percent(wide)}`)),
                wide > 0.02 * text.length + 0.02 && s("text", { class: i === chosen ? "on" : null, x: 5, y: 20 }, text));
        }));
}

// -- what each setting does to the distribution, in the server's order (nano_llama/core/sampling), from an answer of
// POST /inspect/next. A step is {name, says, p, left, kept}: p holds the probability of each listed token after it (0:
// cut), left how many tokens may still come (null: not known here), kept the mass that the step kept.

/** The number in [0, 1) that the server draws for a seed and a position: ten rounds of Philox4x32. */
export function uniform(seed, position) {
    const wide = BigInt.asUintN(64, BigInt(seed)), at = BigInt(position);
    let [c0, c1, c2, c3] = [at & MASK, at >> 32n, 0n, 0n], k0 = wide & MASK, k1 = wide >> 32n;
    for (let round = 0; round < 10; round++) {
        const a = 0xd2511f53n * c0, b = 0xcd9e8d57n * c2;
        [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
        k0 = (k0 + 0x9e3779b9n) & MASK;
        k1 = (k1 + 0xbb67ae85n) & MASK;
    }
    return Number((c0 << 21n) | (c1 >> 11n)) * 2 ** -53;
}

/** The steps as the server computed them, over its whole vocabulary. */
export function confirmed(answer, temperature) {
    const { logits, adjusted, cut_by: cutBy, p: last } = answer.top, names = answer.cuts.map((cut) => cut.name);
    const made = [step("model", logits.map((x) => Math.exp(x - answer.logsumexp)), answer.vocab_size, 1)];
    const tempered = adjusted.map((x) => (x === null ? 0 : Math.exp((x - adjusted[best(adjusted)]) / temperature)));
    const after = ["min_p", "top_k", "top_p"], survivor = best(last);
    let sum = temperature > 0 ? tempered[survivor] / last[survivor] : 1; // over the survivors; before a cut it was more
    for (const { name, mass } of answer.cuts) if (after.includes(name)) sum /= mass;
    answer.cuts.forEach(({ name, left, mass }, at) => {
        const gone = (i) => cutBy[i] !== null && names.indexOf(cutBy[i]) <= at && names.includes(cutBy[i]);
        if (after.includes(name)) sum *= mass;
        const p = logits.map((x, i) => {
            if (gone(i)) return 0;
            if (at === names.length - 1) return last[i];
            if (name === "constraint" || name === "min_tokens") return made.at(-1).p[i] / mass;
            if (name === "penalties") return Math.exp(adjusted[i] - answer.adjusted_logsumexp);
            return tempered[i] / sum;
        });
        made.push(step(name, p, left, mass));
    });
    return made;
}

/** The same at other settings, at once and without the server: over the listed tokens alone, so it may be a little off. */
export function estimated(answer, settings, promptIds, outputIds) {
    const { ids, logits, cut_by: cutBy } = answer.top, t = settings.temperature;
    const barred = (i) => cutBy[i] === "constraint" || cutBy[i] === "min_tokens";
    const made = [step("model", logits.map((x) => Math.exp(x - answer.logsumexp)), answer.vocab_size, 1)];
    const push = (name, weights, kept) => made.push(step(name, shares(weights), null, kept));
    if (logits.some((_, i) => barred(i))) push("constraint", made[0].p.map((p, i) => (barred(i) ? 0 : p)), 1);
    const x = penalized(ids, logits, settings, promptIds, outputIds).map((v, i) => (barred(i) ? -Infinity : v));
    const largest = x[best(x)];
    if (x.some((v, i) => v !== logits[i] && !barred(i))) push("penalties", x.map((v) => Math.exp(v - largest)), 1);
    if (t === 0) return push("temperature", x.map((_, i) => Number(i === best(x))), 1), made;
    const weights = x.map((v) => Math.exp((v - largest) / t));
    if (t !== 1) push("temperature", weights, 1);
    const cut = (name, keeps) => {
        const before = shares(weights);
        weights.forEach((w, i) => (weights[i] = keeps(w, i, before) ? w : 0));
        push(name, weights, before.reduce((sum, p, i) => sum + (weights[i] ? p : 0), 0));
    };
    if (settings.min_p > 0) cut("min_p", (w) => w >= settings.min_p);
    if (settings.top_k > 0 && settings.top_k < weights.filter(Boolean).length) {
        const floor = [...weights].sort((a, b) => b - a)[settings.top_k - 1];
        cut("top_k", (w) => w >= floor);
    }
    if (settings.top_p < 1) {
        const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a] || ids[a] - ids[b]), all = shares(weights);
        const nucleus = new Set();
        for (let i = 0, mass = 0; i < order.length && mass < settings.top_p; mass += all[order[i++]]) nucleus.add(order[i]);
        cut("top_p", (w, i) => nucleus.has(i));
    }
    return made;
}

/** The bar of the draw: the tokens by ascending id, and the one on which u falls. -> [{i, from, to}], its place or -1 */
export function bar(ids, p, u) {
    let end = 0;
    const order = ids.map((_, i) => i).filter((i) => p[i] > 0).sort((a, b) => ids[a] - ids[b]);
    const total = order.reduce((sum, i) => sum + p[i], 0);
    const parts = order.map((i) => ({ i, from: end, to: (end += p[i] / total) }));
    return { parts, hit: parts.findIndex((part) => part.to > u) };
}

function penalized(ids, logits, settings, promptIds, outputIds) {
    const seen = new Set([...promptIds, ...outputIds]), counts = new Map(), r = settings.repetition_penalty;
    for (const id of outputIds) counts.set(id, (counts.get(id) ?? 0) + 1);
    return logits.map((logit, i) => {
        let x = logit;
        if (seen.has(ids[i])) x = x > 0 ? x / r : x * r;
        const times = counts.get(ids[i]) ?? 0;
        return times ? x - settings.frequency_penalty * times - settings.presence_penalty : x;
    });
}

function titleOf({ name }) {
    return name.replace("_", "-");
}

function step(name, p, left, kept) {
    return { name, says: SAYS[name] ?? "", p, left, kept };
}

function shares(weights) {
    const total = weights.reduce((sum, w) => sum + w, 0);
    return weights.map((w) => w / total);
}

function best(values) {
    return values.reduce((top, value, i) => (value !== null && (values[top] === null || value > values[top]) ? i : top), 0);
}

customElements.define("nl-why", Why);
