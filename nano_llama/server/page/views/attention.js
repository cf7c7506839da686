// <nl-attention>: whom a token reads. Any head's attention as arcs over the text and as a grid, with the other query heads
// of its KV head; thumbnails of all heads; the sink. View 5. Tests: tests/page/test_replayed.py.

import { fill, forPage, h, hint, listbox, percent, rove, s, select, table, twin } from "../lib/dom.js";
import { byEngine, computed, likeliest, named, ownP, Replayed } from "../lib/replay.js";

const NAMED = 3;
const LEAST = 0.01; // a weight below it has no arc
const WIDEST = 7; // px: all of a head's attention
const SHADE = [58, 143, 192]; // seen on the light and on the dark ground

export class Attention extends Replayed {
    static lead = "Whom does a token read? Every head gives out 100 % of its attention among the tokens so far. Choose the token that reads; the arcs lead to what it reads.";
    static parts = ["choice", "text", "says", "grids", "twin", "map", "by"];
    static lines = ["attention_block", "rope", "attention", "softmax", "attention_weights"];

    connectedCallback() {
        addEventListener("keydown", (event) => this.onKey(event));
        new ResizeObserver(() => this.tokens?.offsetParent && this.arc()).observe(this);
    }

    show(given) {
        const { layers, heads, kv_heads: kvHeads } = given.info.shape;
        Object.assign(this, { layers, heads, perGroup: heads / kvHeads, tokens: null, map: null });
        return super.show(given);
    }

    get layer() {
        const { layer } = this.store.state;
        return layer >= 0 && layer < this.layers ? layer : Math.floor(this.layers / 2);
    }

    get head() {
        return Math.min(this.heads - 1, this.store.state.head);
    }

    get reader() {
        const { place } = this.store.state;
        return place >= 0 && place < this.ids.length ? place : this.place;
    }

    /** The heads that share the keys and values of the chosen one. */
    get group() {
        const first = this.head - (this.head % this.perGroup);
        return Array.from({ length: this.perGroup }, (_, n) => first + n);
    }

    read() {
        return this.answering("text", async (still, replay) => {
            const { ids, parts } = this, answer = await replay({ tokens: ids, view: "attention", layer: this.layer });
            const name = await still(named(ids));
            Object.assign(this, { answer, name });
            if (!this.tokens) this.drawText();
            await this.draw();
            if (this.map) return;
            fill(parts.map, hint("All heads are being computed …"));
            this.map = await replay({ tokens: ids.slice(0, this.info.limits.grid), view: "attention" });
            this.drawMap();
        });
    }

    set(changes) {
        const before = this.layer;
        this.store.set(changes);
        return this.layer === before ? this.draw() : this.read();
    }

    onKey(event) {
        const step = { h: 1, H: -1, l: 1, L: -1 }[event.key];
        if (!step || !this.answer || !this.tokens?.offsetParent || !forPage(event)) return;
        if (event.key.toLowerCase() === "h") this.set({ head: (this.head + step + this.heads) % this.heads });
        else this.set({ layer: (this.layer + step + this.layers) % this.layers });
    }

    weight(head, from, to) {
        return this.answer.weights.data[(head * this.ids.length + from) * this.ids.length + to];
    }

    /** The text, whose tokens can be chosen. */
    drawText() {
        const { ids, name, parts } = this;
        this.tokens = listbox({ class: "reads" }, "The token that reads", Array.from(ids, (id, at) => h("span", { role: "option", class: "piece", "data-at": at }, name(id))),
            (option) => this.set({ place: Number(option.dataset.at) }));
        this.overlay = s("svg", { class: "arcs", "aria-hidden": "true" });
        fill(parts.text, h("div", { class: "arched" }, this.tokens, this.overlay));
    }

    draw() {
        const { parts, group, head, layer, reader, ids, name, perGroup } = this, T = ids.length;
        const focused = this.contains(document.activeElement) ? document.activeElement.id : "";
        const choice = h("select", { id: "layer", title: "L", onchange: () => this.set({ layer: Number(choice.value) }) }, Array.from({ length: this.layers }, (_, n) => h("option", { value: n }, n)));
        choice.value = String(layer);
        const button = (one) => h("button", { id: `head-${one}`, class: group.includes(one) ? `tone tone${(one % perGroup) % 4}` : null, "aria-pressed": String(one === head), title: "H", onclick: () => this.set({ head: one }) }, one);
        const groups = Array.from({ length: this.heads / perGroup }, (_, n) => h("span", { class: "group" }, h("small", {}, perGroup > 1 && `KV head ${n}:`), Array.from({ length: perGroup }, (_, at) => button(n * perGroup + at))));
        fill(parts.choice,
            h("div", { class: "actions heads" }, h("label", { for: "layer" }, "Layer"), choice, perGroup > 1 ? null : h("span", {}, "Head"), groups),
            hint(perGroup > 1 ? `${perGroup} query heads share the keys and values of one KV head and are drawn together, the chosen one boldly.` : "Each head of this model has keys and values of its own."));
        document.getElementById(focused)?.focus();
        select(this.tokens.children, this.tokens.children[reader]);
        [...this.tokens.children].forEach((option, at) => {
            option.title = at <= reader ? percent(this.weight(head, reader, at)) : "comes later: not read";
            option.style.setProperty("--much", at < reader ? Math.sqrt(this.weight(head, reader, at)).toFixed(3) : 0);
        });
        this.arc();
        for (const one of parts.map.querySelectorAll("button")) mark(one, Number(one.dataset.layer) === layer && Number(one.dataset.head) === head);
        fill(parts.grids, h("div", { class: "grids" }, group.map((one) => this.picture(one, T))), h("small", {}, "rows read, columns are read; fuller colour is more"));
        const columns = ["#", "token", ...group.map((one) => `head ${one}`)];
        fill(parts.twin, twin(table(`What ${name(ids[reader])} reads in layer ${layer}`, columns, Array.from({ length: reader + 1 }, (_, to) => [to, name(ids[to]), ...group.map((one) => this.weight(one, reader, to).toFixed(4))])), parts.twin));
        return this.say();
    }

    arc() {
        const { reader, head, group } = this, lines = group.map((one, n) => ({ weights: (to) => this.weight(one, reader, to), tone: `tone${n % 4}`, strong: one === head }));
        fill(this.overlay, arcs([...this.tokens.children], reader, lines));
    }

    /** One head's grid; a click on a row chooses who reads. */
    picture(head, T) {
        const canvas = paint(h("canvas", { role: "img", "aria-label": `Attention of head ${head}: ${T} tokens by ${T}` }), T, (from, to) => this.weight(head, from, to));
        canvas.addEventListener("click", ({ offsetY }) => this.set({ head, place: Math.min(T - 1, Math.floor((offsetY / canvas.clientHeight) * T)) }));
        return h("figure", { class: head === this.head ? "strong" : null }, h("div", {}, canvas, h("i", { "--row": this.reader / T, "--rows": T })), h("figcaption", { class: `tone tone${(head % this.perGroup) % 4}` }, `head ${head}`));
    }

    async say() {
        const { parts, answer, ids, name, head, reader, layer } = this, T = ids.length, weights = Array.from({ length: reader + 1 }, (_, to) => this.weight(head, reader, to));
        const most = weights.map((_, to) => to).sort((a, b) => weights[b] - weights[a]).slice(0, NAMED);
        const called = (to) => (to === reader ? "itself" : to === 0 ? `${name(ids[0])}, the first token` : `${name(ids[to])} at ${to}`);
        const sink = mean(T, 1, (from) => this.weight(head, from, 0));
        fill(parts.says,
            h("p", { role: "status" }, `In head ${head} of layer ${layer}, `, h("b", { class: "chip" }, name(ids[reader])), ` at ${reader} reads ${most.map((to) => `${called(to)} (${percent(weights[to])})`).join("; ")}.`),
            T > 1 && hint(`On average ${percent(sink)} of this head's attention lies on the first token: a head that finds nothing to read leaves it there, in its sink.`));
        const before = Array.from(ids.slice(0, reader + 1)), word = ids[reader + 1] ?? (await likeliest(before).catch(() => []))[0];
        if (word === undefined) return;
        const [engine, spelled] = await Promise.all([byEngine(before, word).catch(() => null), named([word])]);
        if (this.answer === answer && this.reader === reader) fill(parts.by, computed(answer, "Attention is not in the engine's answers. ", ownP(spelled(word), engine)));
    }

    /** All heads, small: a row is a layer. */
    drawMap() {
        const { map, parts, layers, heads, perGroup, ids } = this, T = map.weights.shape[2], size = T * T;
        const at = (layer, head) => (from, to) => map.weights.data[(layer * heads + head) * size + from * T + to] / map.scale;
        const facts = (layer, head) => [mean(T, 1, (from) => at(layer, head)(from, 0)), mean(T, 1, (from) => at(layer, head)(from, from)), mean(T, 2, (from) => at(layer, head)(from, from - 1))];
        const all = Array.from({ length: layers * heads }, (_, n) => ({ layer: Math.floor(n / heads), head: n % heads, facts: facts(Math.floor(n / heads), n % heads) }));
        const thumb = ({ layer, head, facts: [first] }) => mark(h("button", { class: perGroup > 1 && head && head % perGroup === 0 ? "edge" : null, "data-layer": layer, "data-head": head, onclick: () => this.set({ layer, head }), "aria-label": `layer ${layer}, head ${head}: ${percent(first)} on the first token`, title: `layer ${layer}, head ${head}` },
            paint(h("canvas"), T, at(layer, head))), layer === this.layer && head === this.head);
        const body = h("div", { class: "thumbs" }, Array.from({ length: layers }, (_, layer) => h("div", {}, h("small", {}, layer), all.slice(layer * heads, (layer + 1) * heads).map(thumb))));
        for (const one of body.querySelectorAll("button")) one.tabIndex = -1;
        (body.querySelector("[aria-pressed=true]") ?? body.querySelector("button")).tabIndex = 0;
        rove(body, "button", () => {}, heads);
        const sinks = all.filter(({ facts: [first] }) => first > 0.5).length;
        const rows = all.map(({ layer, head, facts: [first, self, before] }) => [layer, head, Math.floor(head / perGroup), percent(first), percent(self), percent(before)]);
        fill(parts.map,
            h("p", {}, h("b", {}, `All ${layers * heads} heads`), T < ids.length ? `, on the first ${T} tokens. ` : ". ", T > 1 && `${sinks || "None"} of them leave more than half of their attention on the first token. `, "A diagonal reads itself, a line beside it the token before."),
            h("small", {}, perGroup > 1 ? "a row is a layer; the heads of one KV head stand together" : "a row is a layer, a column a head"), body,
            twin(table("Where each head's attention lies, on average over the text", ["layer", "head", "KV head", "first token", "itself", "the one before"], rows)));
    }
}

/** The mean over the readers from `first` on. */
function mean(T, first, at) {
    let sum = 0;
    for (let from = first; from < T; from++) sum += at(from);
    return T > first ? sum / (T - first) : 0;
}

function mark(button, chosen) {
    button.setAttribute("aria-pressed", String(chosen));
    return button;
}

/**
 * Arcs over tokens that stand in lines. options: their elements; lines: per head {weights: (to) => number, tone, strong}.
 * An arc is as thick as the root of its weight, so that small ones are seen.
 */
function arcs(options, from, lines) {
    const place = (option) => ({ x: option.offsetLeft + option.offsetWidth / 2, top: option.offsetTop, end: option.offsetTop + option.offsetHeight });
    const reader = place(options[from]), all = options.slice(0, from + 1).map(place);
    return lines.map(({ weights, tone, strong }, n) => {
        const shift = 3 * (n - (lines.length - 1) / 2);
        const paths = all.map((read, to) => {
            const weight = weights(to);
            if (weight < LEAST) return null;
            const width = Math.max(1, WIDEST * Math.sqrt(weight)) * (strong ? 1 : 0.6);
            return s("path", { d: curve(reader, read, shift), "stroke-width": width.toFixed(2), opacity: (0.25 + 0.75 * weight).toFixed(3), "data-to": to, "data-weight": weight });
        });
        return s("g", { class: `${tone}${strong ? " strong" : ""}` }, paths.filter(Boolean));
    });
}

function curve(reader, read, shift) {
    const from = reader.x + shift, to = read.x + shift;
    if (read.top < reader.top) return `M${from} ${reader.top} C${from} ${reader.top - 26} ${to} ${read.end + 26} ${to} ${read.end}`;
    const rise = reader.top - Math.min(24, 10 + Math.abs(from - to) / 8);
    if (reader === read || from === to) return `M${from - 5} ${reader.top} C${from - 9} ${rise - 6} ${from + 9} ${rise - 6} ${from + 5} ${reader.top}`;
    return `M${from} ${reader.top} C${from} ${rise} ${to} ${rise} ${to} ${reader.top}`;
}

/** Draw T x T weights, readers as rows: darker for more. at: (from, to) => the weight */
function paint(canvas, T, at) {
    canvas.width = canvas.height = T;
    const context = canvas.getContext("2d"), image = context.createImageData(T, T);
    for (let from = 0; from < T; from++) {
        for (let to = 0; to <= from; to++) image.data.set([...SHADE, 255 * Math.sqrt(at(from, to))], 4 * (from * T + to));
    }
    context.putImageData(image, 0, 0);
    return canvas;
}

customElements.define("nl-attention", Attention);
