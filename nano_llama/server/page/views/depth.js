// What happens through the depth of the model, replayed. <nl-lens>: the logit lens. After each layer, what the model would
// say next if it ended there; the rank of pinned words by layer. View 4. <nl-attribution>: who wrote this word. What the
// embedding and each layer's attention and MLP added to its logit, as a waterfall (direct logit attribution); or to its
// lead over another word. View 6. Tests: tests/page/test_replayed.py.

import { ask } from "../lib/api.js";
import { count, fill, h, head, hint, percent, rove, s, select, table, twin } from "../lib/dom.js";
import { byEngine, computed, likeliest, named, ownP, Replayed } from "../lib/replay.js";

const COLUMNS = 8, PINS = 4, LIKELIEST = "The likeliest next word after each layer";
const OFFERED = 6, NAMED = 3;

class Lens extends Replayed {
    static lead = "What would the model say next, if it ended after this layer? Each column is a token that it has read, each row one layer more. Choose a cell; pin a word to follow it through the depth. Early layers do not speak the language of the output yet.";
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
        const grid = h("table", { role: "grid", class: "lens", "aria-label": LIKELIEST }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "after"), heads)), body);
        const choose = (one) => {
            if (!one) return;
            this.store.set({ row: Number(one.dataset.row), place: answer.first + Number(one.dataset.column) });
            this.choose();
        };
        body.addEventListener("click", (event) => choose(event.target.closest("td")));
        rove(body, "td", choose, columns);
        const box = h("div", { class: "scroll tall" }, grid);
        fill(this.parts.grid, h("small", {}, LIKELIEST), box);
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
                s("text", { x: row ? `${x(row)}%` : 8, y: 170, "text-anchor": row ? "middle" : "end" }, row ? row - 1 : "embedding"))),
        h("small", {}, `rank after each layer, having read “${read}”; first is at the top`));
}

class Attribution extends Replayed {
    static lead = "Who wrote this word? Its logit is the sum of what the embedding, each attention and each MLP added for it. From top to bottom: the depth of the model.";
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
        const set = async (changes, then) => {
            this.store.set(changes);
            await this.read();
            this.parts.choices.querySelector(then).focus();
        };
        const button = (id) => h("button", { class: "chip", "aria-pressed": String(id === word), "data-id": id, onclick: () => set({ word: id }, "[aria-pressed=true]") }, name(id), id === this.next && h("small", {}, " written"));
        const rival = h("select", { id: "against", onchange: () => set({ against: Number(rival.value) }, "select") },
            h("option", { value: -1 }, "nothing: the logit itself"), words.filter((id) => id !== word).map((id) => h("option", { value: id }, name(id))));
        rival.value = String(against);
        fill(this.parts.choices,
            h("p", { class: "words" }, h("span", {}, "The word after ", h("b", {}, name(this.before.at(-1))), ":"), words.map(button)),
            h("div", { class: "actions" }, h("label", { for: "against" }, "compared with"), rival),
            hint("All words may be raised together: compare two to see who chose between them."));
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
        const down = order.filter((i) => shares[i] < -0.005).reverse().slice(0, NAMED);
        fill(this.parts.picture,
            h("p", {}, `Most was added by ${list(order.slice(0, NAMED))}; `, down.length ? `most was taken by ${list(down)}.` : "nobody took much away."),
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

customElements.define("nl-lens", Lens);
customElements.define("nl-attribution", Attribution);
