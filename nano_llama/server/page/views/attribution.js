// <nl-attribution>: who wrote this word. What the embedding and each layer's attention and MLP added to its logit, as a
// waterfall over depth (direct logit attribution); or to its lead over another word. View 6.
// Tests: tests/page/test_replayed.py.

import { fill, h, hint, s, table, twin } from "../lib/dom.js";
import { byEngine, computed, likeliest, named, ownP, Replayed } from "../lib/replay.js";

const OFFERED = 6, NAMED = 3;

export class Attribution extends Replayed {
    static lead = "Who wrote this word? Each attention and each MLP adds something to one stream of numbers, and the logit of a word is the sum of what they all added for it. From top to bottom: the depth of the model.";
    static parts = ["choices", "picture"];
    static lines = ["layers", "attention_block", "mlp", "contributions"];

    read() {
        return this.answering("picture", async (still, replay) => {
            const { before: ids, next: written, store: { state } } = this, top = (await still(likeliest(ids))).slice(0, OFFERED);
            const real = (id) => id >= 0 && id < this.info.vocab_size;
            const word = real(state.word) ? state.word : (written ?? top[0]), against = real(state.against) && state.against !== word ? state.against : -1;
            const words = [...new Set([written, ...top, word, against])].filter((id) => id >= 0), name = await still(named([...words, ids.at(-1)]));
            this.offer(words, word, against, name);
            const of = (token) => replay({ tokens: ids, view: "attribution", token });
            const plus = await of(word), minus = against < 0 ? null : await of(against);
            const [engine, other] = await still(Promise.all([byEngine(ids, word), minus && byEngine(ids, against)]));
            const shares = Array.from(plus.shares.data, (share, i) => share - (minus?.shares.data[i] ?? 0));
            const logit = plus.logit - (minus?.logit ?? 0), own = engine && (!minus || other) ? (engine.logit - (other?.logit ?? 0)).toFixed(3) : "not among its likeliest";
            this.draw(plus.names, shares, minus ? `the lead of “${name(word)}” over “${name(against)}”` : `the logit of “${name(word)}”`, logit,
                computed(plus, `The engine's own ${minus ? "difference" : "logit"}: `, h("span", { class: "own" }, own), ". ", ownP(name(word), engine)));
        });
    }

    /** The words that can be asked for. */
    offer(words, word, against, name) {
        const set = (changes) => (this.store.set(changes), this.read());
        const button = (id) => h("button", { class: "chip", "aria-pressed": String(id === word), "data-id": id, onclick: () => set({ word: id }).then(() => this.parts.choices.querySelector("[aria-pressed=true]").focus()) }, name(id), id === this.next && h("small", {}, " written"));
        const rival = h("select", { id: "against", onchange: () => set({ against: Number(rival.value) }).then(() => this.parts.choices.querySelector("select").focus()) },
            h("option", { value: -1 }, "nothing: the logit itself"), words.filter((id) => id !== word).map((id) => h("option", { value: id }, name(id))));
        rival.value = String(against);
        fill(this.parts.choices,
            h("p", { class: "words" }, "The word after ", h("b", {}, name(this.before.at(-1))), ": ", words.map(button)),
            h("div", { class: "actions" }, h("label", { for: "against" }, "compared with"), rival),
            hint("A logit alone decides nothing: all words may be raised together. Compare two words to see who chose between them."));
    }

    draw(names, shares, what, logit, by) {
        const ends = shares.reduce((sums, share) => [...sums, sums.at(-1) + share], [0]), least = Math.min(...ends), span = Math.max(...ends) - least || 1;
        const x = (value) => (100 * (value - least)) / span;
        const called = (i) => names[i].replace("mlp", "MLP");
        const bar = (i, y, height) => {
            const [from, to] = [ends[i], ends[i + 1]].sort((a, b) => a - b);
            return s("rect", { class: `${names[i].split(" ")[0]} ${shares[i] < 0 ? "less" : "more"}`, x: `${x(from)}%`, width: `${Math.max(0.4, x(to) - x(from))}%`, y, height, "data-share": shares[i] }, s("title", {}, `${called(i)}: ${signed(shares[i])}`));
        };
        const row = (label, bars, numbers) => h("div", { class: "fall" }, h("span", {}, label),
            s("svg", { width: "100%", height: 19, "aria-hidden": "true" }, s("line", { class: "rule", x1: `${x(0)}%`, x2: `${x(0)}%`, y1: 0, y2: 19 }), bars), numbers.map((number) => h("span", { class: "number" }, number)));
        const rows = Array.from({ length: (shares.length - 1) / 2 }, (_, layer) =>
            row(`layer ${layer}`, [bar(1 + 2 * layer, 1, 8), bar(2 + 2 * layer, 10, 8)], [signed(shares[1 + 2 * layer]), signed(shares[2 + 2 * layer])]));
        const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]), list = (places) => places.map((i) => `${called(i)} (${signed(shares[i])})`).join(", ");
        const down = order.filter((i) => shares[i] < 0).reverse().slice(0, NAMED);
        fill(this.parts.picture,
            h("p", {}, `Most was added by ${list(order.slice(0, NAMED))}; `, down.length ? `most was taken by ${list(down)}.` : "nobody took anything away."),
            h("div", { class: "falls", role: "img", "aria-label": `Waterfall over depth: the parts add up to ${logit.toFixed(3)}, ${what}. The table has every number.` },
                h("div", { class: "fall key" }, h("span", {}), h("span", {}, "filled: added, hollow: taken away"), h("span", { class: "number attention" }, "attention"), h("span", { class: "number mlp" }, "MLP")),
                row("embedding", bar(0, 4, 11), [signed(shares[0]), ""]), rows,
                row("all", s("rect", { class: "sum", x: `${x(Math.min(0, logit))}%`, width: `${x(Math.abs(logit)) - x(0)}%`, y: 4, height: 11 }), [signed(logit), ""])),
            h("p", {}, `These ${shares.length} parts add up to `, h("b", { class: "total", "data-sum": ends.at(-1) }, ends.at(-1).toFixed(3)), `: ${what}.`), by,
            twin(table(`What each part added to ${what}`, ["part", "added", "sum so far"], shares.map((share, i) => [names[i], share.toFixed(4), ends[i + 1].toFixed(4)])), this.parts.picture));
    }
}

function signed(value) {
    return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

customElements.define("nl-attribution", Attribution);
