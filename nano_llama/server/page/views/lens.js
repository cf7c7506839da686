// <nl-lens>: the logit lens. After each layer, what the model would say next if it ended there; the rank of pinned words
// by layer. View 4. Tests: tests/page/test_replayed.py.

import { ask } from "../lib/api.js";
import { count, fill, h, head, percent, rove, s, select, table, twin } from "../lib/dom.js";
import { byEngine, computed, likeliest, named, ownP, Replayed } from "../lib/replay.js";

const COLUMNS = 8, PINS = 4;

export class Lens extends Replayed {
    static lead = "What would the model say next, if it ended after this layer? Each column is a token that it has read, each row one layer more. Choose a cell; pin a word to follow it through the depth. Early layers do not speak the language of the output yet: the first rows mislead.";
    static parts = ["grid", "cell", "pins", "ranks", "by"];
    static lines = ["embedding", "layers", "logits", "rmsnorm", "linear"];

    get pins() {
        const said = this.store.state.pins.split(",").filter(Boolean).map(Number);
        return [...new Set([this.word, ...said.filter((id) => Number.isInteger(id) && id >= 0 && id < this.info.vocab_size)])].slice(0, PINS);
    }

    read() {
        return this.answering("grid", async (still, replay) => {
            const ids = this.before, first = Math.max(0, ids.length - COLUMNS);
            this.word = this.next ?? (await still(likeliest(ids)))[0];
            const answer = await replay({ tokens: ids, view: "lens", first, pins: this.pins });
            const name = await still(named([...ids, ...answer.ids.data, ...answer.pins]));
            Object.assign(this, { answer, name });
            if (!this.drawn) this.draw();
            await this.choose();
        });
    }

    /** The grid: a table, rows are layers. */
    draw() {
        const { answer, name, before: ids } = this, [rows, columns, listed] = answer.ids.shape;
        this.drawn = true;
        const cell = (row, column) => {
            const at = (row * columns + column) * listed, p = answer.p.data[at], text = name(answer.ids.data[at]);
            return h("td", { role: "gridcell", tabindex: -1, "data-row": row, "data-column": column, "data-id": answer.ids.data[at], "data-p": p, "--p": p.toFixed(4), title: `${text} ${percent(p)}` },
                h("span", {}, text), h("small", {}, percent(p)));
        };
        const body = h("tbody", {}, Array.from({ length: rows }, (_, row) => h("tr", {}, h("th", { scope: "row" }, after(row)), Array.from({ length: columns }, (_, column) => cell(row, column)))));
        const heads = [...ids.slice(answer.first)].map((id) => h("th", { scope: "col", title: name(id) }, h("span", {}, name(id))));
        const grid = h("table", { role: "grid", class: "lens" }, h("caption", {}, "The likeliest next word after each layer"), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "after"), heads)), body);
        const choose = (one) => {
            if (!one) return;
            this.store.set({ row: Number(one.dataset.row), place: answer.first + Number(one.dataset.column) });
            this.choose();
        };
        body.addEventListener("click", (event) => choose(event.target.closest("td")));
        rove(body, "td", choose, columns);
        const box = h("div", { class: "scroll tall" }, grid);
        fill(this.parts.grid, box);
        box.scrollTo(box.scrollWidth, box.scrollHeight);
    }

    /** Show the cell that the state says; the last one, if none. */
    choose() {
        const { answer, name, before: ids, parts } = this, { row: asked, place } = this.store.state, [rows, columns, listed] = answer.ids.shape;
        const row = asked >= 0 && asked < rows ? asked : rows - 1;
        const column = place >= answer.first && place < ids.length ? place - answer.first : columns - 1;
        select(parts.grid.querySelectorAll("td"), parts.grid.querySelector(`[data-row="${row}"][data-column="${column}"]`));
        const at = (row * columns + column) * listed, read = ids.slice(0, answer.first + column + 1);
        const words = Array.from({ length: listed }, (_, i) => ({ id: answer.ids.data[at + i], p: answer.p.data[at + i] }));
        fill(parts.cell, h("table", { class: "bars" },
            h("caption", {}, row ? `After layer ${row - 1}, having read ` : "From the embedding alone of ", h("b", { class: "chip" }, name(read.at(-1))), `: ${(answer.entropy.data[row * columns + column] / Math.LN2).toFixed(1)} bits of doubt. Choose a word to pin it.`),
            head(["token", "probability"]),
            h("tbody", {}, words.map(({ id, p }) => h("tr", {}, h("td", {}, h("button", { class: "chip", onclick: () => this.pin(id) }, name(id))), h("td", { class: "after", "--p": p.toFixed(5), "data-p": p }, percent(p)))))));
        this.follow(column);
        return this.confirm(read, column);
    }

    /** The ranks of the pinned words in one column. */
    follow(column) {
        const { answer, name, parts } = this, { pins } = answer, [rows, columns] = answer.ids.shape;
        const ranks = pins.map((_, n) => Array.from({ length: rows }, (_, row) => answer.pin_rank.data[(row * columns + column) * pins.length + n]));
        const p = (row, n) => answer.pin_p.data[(row * columns + column) * pins.length + n];
        const typed = parts.pins.querySelector("input")?.value ?? "";
        const field = h("input", { id: "pin", size: 10, autocomplete: "off", placeholder: "␣Paris", value: typed });
        const note = h("small", { role: "status" });
        fill(parts.pins,
            h("ul", { class: "words" }, pins.map((id, n) => h("li", { class: `tone tone${n}` }, h("b", { class: "chip" }, name(id)), ` ${verdict(ranks[n])}`,
                n > 0 && h("button", { class: "quiet", "aria-label": `Unpin ${name(id)}`, onclick: () => this.pin(id) }, "×")))),
            h("form", { class: "actions", onsubmit: (event) => (event.preventDefault(), this.pinText(field, note)) }, h("label", { for: "pin" }, "Pin a word (␣: its space)"), field, h("button", {}, "Pin"), note));
        const rowsOf = Array.from({ length: rows }, (_, row) => [after(row), ...pins.flatMap((_, n) => [count(ranks[n][row]), percent(p(row, n))])]);
        fill(parts.ranks, chart(ranks, pins.map(name), name(this.before[answer.first + column]), this.info.vocab_size),
            twin(table("Rank and probability of the pinned words after each layer", ["after", ...pins.flatMap((id) => [`rank of ${name(id)}`, "p"])], rowsOf), parts.ranks));
    }

    async confirm(read, column) {
        const { answer, name, parts } = this, [rows, columns, listed] = answer.ids.shape, at = ((rows - 1) * columns + column) * listed, word = answer.ids.data[at];
        const engine = await byEngine(read, word).catch(() => null);
        if (this.answer === answer) fill(parts.by, computed(answer, ownP(name(word), engine), ` The last row's: ${percent(answer.p.data[at])}.`));
    }

    /** Pin a word, or let it go. */
    async pin(id) {
        const now = this.pins.slice(1), next = now.includes(id) ? now.filter((one) => one !== id) : [...now, id].slice(1 - PINS);
        this.store.set({ pins: next.join(",") });
        await this.read();
        this.parts.pins.querySelector("input")?.focus();
    }

    async pinText(field, note) {
        const text = field.value.replaceAll("␣", " ");
        if (!text) return;
        const { tokens } = await ask("/inspect/tokens", { prompt: text }).catch((error) => ((note.textContent = error.message), { tokens: [] }));
        const words = tokens.filter((token) => !token.special);
        if (!words.length) return;
        field.value = "";
        if (!this.pins.includes(words[0].id)) await this.pin(words[0].id);
        if (words.length > 1) this.parts.pins.querySelector("[role=status]").textContent = `That is ${words.length} tokens; the first one is pinned.`;
    }
}

function after(row) {
    return row ? `layer ${row - 1}` : "embedding";
}

/** What became of a word, in words. */
function verdict(ranks) {
    const last = ranks.at(-1), leads = ranks.length - [...ranks].reverse().findIndex((rank) => rank !== 1);
    if (last > 1) return `ends at rank ${count(last)}; its best: ${count(Math.min(...ranks))}, after ${after(ranks.indexOf(Math.min(...ranks)))}`;
    return ranks.every((rank) => rank === 1) ? "is first throughout" : `is first from ${after(leads)} on`;
}

/** Ranks by depth, on a logarithmic scale: first is at the top. */
function chart(ranks, names, read, vocabulary) {
    const y = (rank) => (100 * Math.log(rank)) / Math.log(vocabulary), rows = ranks[0].length, x = (row) => (100 * row) / (rows - 1);
    const decades = Array.from({ length: Math.ceil(Math.log10(vocabulary)) }, (_, n) => 10 ** n), each = Math.ceil(rows / 6);
    const label = names.map((name, n) => `${name} ${verdict(ranks[n])}`).join("; ");
    return h("div", { class: "chart" },
        s("svg", { role: "img", "aria-label": `Rank by layer, having read ${read}: ${label}`, width: "100%", height: 150 },
            decades.map((rank) => [s("line", { class: "rule", x1: 0, x2: "100%", y1: `${y(rank)}%`, y2: `${y(rank)}%` }), s("text", { x: -10, y: `${y(rank)}%`, dy: 4, "text-anchor": "end" }, count(rank))]),
            ranks.map((line, n) => s("g", { class: `tone${n}` },
                s("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%" }, s("polyline", { points: line.map((rank, row) => `${x(row)},${y(rank)}`).join(" ") })),
                line.map((rank, row) => s("circle", { cx: `${x(row)}%`, cy: `${y(rank)}%`, r: 3.5, "data-rank": rank }, s("title", {}, `${names[n]} after ${after(row)}: rank ${count(rank)}`))))),
            Array.from({ length: rows }, (_, row) => row).filter((row) => row === 0 || row === rows - 1 || (row % each === 0 && row < rows - each / 2)).map((row) =>
                s("text", { x: `${x(row)}%`, y: 170, "text-anchor": row ? "middle" : "start" }, row ? row - 1 : "embedding"))),
        h("small", {}, `rank after each layer, having read “${read}”; first is at the top`));
}

customElements.define("nl-lens", Lens);
