// <nl-blocks>: the cache of keys and values, block by block: which of the page's requests hold it, which share it, what is
// kept for later. View 8. <nl-timeline>: the engine's steps side by side: who reads a piece of its prompt, who decodes, who
// waits, and how much of a step's budget is used; an open step shows its packed batch. View 9. <nl-roofline>: how fast the
// engine writes, against how fast memory can deliver what a step must read; and where the time of a step goes. View 10.
// Tests: tests/page/test_engine.py.

import { ask } from "../lib/api.js";
import { count, fill, h, head, hint, lazyTwin, listbox, many, percent, s, scroller, select, table, visible } from "../lib/dom.js";
import { engine, EngineView, hue, textsOf } from "../lib/engine.js";

const ROUND = 32; // cells are added so many at a time
const EMPTY = "No step since you looked here. Send readers, or write something.";
const TABLED = 60, LISTED = 6; // steps, and ids of a row
const KINDS = { prompt: "a piece of a prompt", decode: "one token written", waiting: "waiting", preempted: "blocks given to others" };
const HEIGHT = 240, LEFT = 52, BELOW = 34, ABOVE = 26; // px
const PHASES = {
    embed: "tokens become vectors", norm: "vectors are scaled", qkv: "queries, keys and values", attention: "looks back over the text", o: "what attention found",
    gate_up: "the first half of the MLP", down: "its second half", head: "a score for each token of the vocabulary", waiting: "threads wait for each other",
};

class Blocks extends EngineView {
    says({ num_blocks: all, block_size: size }) {
        return `The model keeps what it has read (keys and values) in ${count(all)} blocks of ${size} tokens. Texts that begin alike share whole blocks.`;
    }

    build() {
        this.counts = h("p", { class: "parts", role: "status" });
        this.grid = listbox({ class: "cells" }, "Blocks by number", [], (cell) => this.open(Number(cell.dataset.at)));
        this.rest = hint();
        this.detail = h("div", { "aria-live": "polite" }, hint("Choose a block to see who holds it, and the text in it."));
        this.twin = lazyTwin(() => this.table());
        fill(this,
            this.lead, this.bar.element, this.counts, this.grid, this.detail,
            hint("A number is a request, ×2: two share the block; the tint, how full it is. A ring: found here, not computed again. Dashed: its requests have ended."),
            this.rest, this.twin.element);
    }

    draw() {
        const { num_blocks: all } = engine.settings, held = engine.blocks(), { kept } = engine, last = engine.steps.at(-1);
        const free = last?.blocks;
        fill(this.counts, !free ? EMPTY : [["held by your requests", held.size, "mine"], ["held by others alone", Math.max(0, free.held - held.size), "others"], ["kept for a text that begins alike", free.kept, "kept"], ["empty", free.empty, "empty"]]
            .map(([name, value, kind]) => h("span", {}, h("b", { class: `tally ${kind}` }, count(value)), ` ${name}`)));
        const most = Math.max(2 * ROUND, ...held.keys(), ...kept.keys(), this.grid.children.length - 1);
        for (let at = this.grid.children.length; at < Math.min(all, Math.ceil((most + 1) / ROUND) * ROUND); at++)
            this.grid.append(h("div", { role: "option", "aria-selected": "false", tabindex: at ? -1 : 0, "data-at": at }));
        for (const cell of this.grid.children) this.paint(cell, held.get(Number(cell.dataset.at)), kept.get(Number(cell.dataset.at)));
        const left = all - this.grid.children.length;
        this.rest.textContent = left > 0 ? `… and ${count(left)} more, which no request of this page has held.` : "";
        const at = this.chosen ?? this.linked(held);
        if (this.grid.children[at]) this.mark(at);
    }

    /** Only what has changed since. */
    paint(cell, held, kept) {
        const one = held?.holders[0] ?? kept?.one, many = held ? held.holders.length : kept && usersOf(cell.dataset.at).length;
        const state = `${held ? "held" : kept ? "kept" : ""}${many > 1 ? " shared" : ""}`, text = many > 1 ? `×${many}` : one?.label ?? "";
        const key = `${state} ${text} ${one?.label} ${held?.tokens} ${held?.found}`;
        if (cell.key === key) return;
        if (held?.found && !cell.key?.endsWith("true")) cell.animate?.([{ transform: "scale(1.5)" }, {}], matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 600);
        cell.key = key;
        cell.className = held?.found ? `${state} found` : state;
        cell.textContent = text;
        cell.title = cell.ariaLabel = `Block ${cell.dataset.at}: ${saysOf(cell.dataset.at, held, kept)}`;
        if (one) cell.style.setProperty("--hue", hue(one));
        cell.style.setProperty("--full", held ? held.tokens / engine.settings.block_size : 1);
    }

    open(at) {
        const { index } = engine.blocks().get(at) ?? engine.kept.get(at) ?? {};
        this.choose("block", at, textIn(at) ? index * engine.settings.block_size : -1);
        this.told = null;
        this.mark(at);
    }

    /** The block that the link means. */
    linked(held) {
        const { block, place } = this.store.state, index = Math.floor(place / engine.settings.block_size);
        return engine.settings.recorded ? block : [...held, ...engine.kept].find(([at, entry]) => entry.index === index && textIn(at))?.[0];
    }

    mark(at) {
        if (this.chosen !== at) select(this.grid.children, this.grid.children[at]);
        this.chosen = at;
        this.describe(at);
    }

    async describe(at) {
        const size = engine.settings.block_size, held = engine.blocks().get(at), kept = engine.kept.get(at), from = (held ?? kept)?.index * size;
        const one = held?.holders[0] ?? kept?.one, tokens = held?.tokens ?? size, key = [at, held?.holders.map((holder) => holder.label), kept?.one.label, tokens].join(" ");
        if (this.told === key) return;
        this.told = key;
        const ids = one && engine.ids(one)?.slice(from, from + tokens);
        let texts = [], text = "";
        try {
            texts = await textsOf(ids);
            text = texts.map(visible).join("");
        } catch (error) {
            text = error.message;
        }
        if (this.told !== key) return;
        fill(this.detail,
            h("p", {}, h("b", {}, `Block ${at}: `), `${saysOf(at, held, kept)}.`),
            one && h("p", {}, `In it: ${tokens} of ${size} tokens, number ${from + 1} to ${from + tokens} of ${engine.what(one)}. `, text ? h("span", { class: "chip" }, text) : h("small", {}, "Their text is not known here.")));
    }

    table() {
        const held = engine.settings ? engine.blocks() : new Map(), size = engine.settings?.block_size;
        const rows = [...held].map(([block, entry]) => [block, "held", entry.tokens, entry.holders.length, entry.holders.map((one) => one.label).join(", "), entry.found ? "found" : "computed"]);
        for (const block of engine.kept.keys()) rows.push([block, "kept", size, 0, `of ${usersOf(block).join(", ")}`, ""]);
        return table("The blocks of this page's requests", ["block", "state", "tokens in it", "references", "requests", "how"], rows.sort((a, b) => a[0] - b[0]));
    }
}

function saysOf(block, held, kept) {
    if (!held && !kept) return "empty, or of others, whose texts nobody sees";
    const users = usersOf(block), shared = users.length > 1 ? `; shared by the requests ${users.join(", ")}, computed once` : "";
    if (kept) return `kept for the next text that begins alike: its last request (${kept.one.label}) has ended${shared}`;
    return `held by request ${labelsOf(held.holders).join(", ")}${held.found ? "; found here, not computed again" : ""}${shared}`;
}

/** Whether what is in a block is of a text that the page shows. */
function textIn(block) {
    return [...(engine.users.get(block) ?? [])].some((one) => engine.isText(one));
}

/** The numbers of all requests that ever had what is in a block. */
function usersOf(block) {
    return labelsOf([...engine.users.get(Number(block))]);
}

function labelsOf(requests) {
    return requests.map((one) => one.label).sort((a, b) => a - b);
}

class Timeline extends EngineView {
    says({ max_num_batched_tokens: most }) {
        return `The engine works in steps, here a column each. A step computes at most ${count(most)} tokens (the bar on top) for all requests together: a long prompt is read in pieces, beside those that write. Choose a step to see its batch.`;
    }

    build() {
        this.list = listbox({ class: "lanes" }, "Steps of the engine", [], (column) => this.open(column));
        this.empty = hint(EMPTY);
        this.detail = h("div", { "aria-live": "polite" });
        this.twin = lazyTwin(() => tableOf(engine.steps.slice(-TABLED)));
        fill(this,
            this.lead, this.bar.element,
            h("p", { class: "parts marks" }, Object.entries(KINDS).map(([kind, says]) => h("span", {}, mark(kind), ` ${says}`))),
            this.empty, this.list, this.detail, this.twin.element);
    }

    draw() {
        const { steps } = engine, { list } = this, follows = list.scrollLeft + list.clientWidth > list.scrollWidth - 40;
        this.empty.hidden = steps.length > 0;
        while (list.firstChild && !steps.includes(list.firstChild.step)) list.firstChild.remove();
        for (const step of steps.slice(list.children.length)) list.append(column(step));
        if (list.firstChild && !list.querySelector("[tabindex='0']")) list.firstChild.tabIndex = 0;
        if (follows) list.scrollLeft = list.scrollWidth;
        const linked = !this.chosen && [...list.children].find(({ step }) => this.means(step));
        if (linked) list.scrollLeft = linked.offsetLeft - list.offsetLeft - 40, this.mark(linked);
    }

    /** Whether the link means this step. */
    means(step) {
        const { step: number, place } = this.store.state;
        return engine.settings.recorded ? step.step === number : place >= 0 && step.rows.some((row) => engine.isText(row) && row.position + row.count > place);
    }

    open(column) {
        const { step } = column, row = step.rows.find((one) => engine.isText(one));
        this.choose("step", step.step, row ? row.position + row.count - 1 : -1);
        this.mark(column);
    }

    mark(column) {
        this.chosen = column.step;
        select(this.list.children, column);
        this.describe(column.step);
    }

    /** The packed batch of a step, in its own numbers. */
    async describe(step) {
        const asked = (this.asked = {}), rows = batchOf(step);
        this.drawBatch(step, rows, []);
        const texts = await textsOf(rows.flatMap((row) => row.ids)).catch(() => []);
        if (asked === this.asked && texts.length) this.drawBatch(step, rows, texts);
    }

    drawBatch(step, rows, texts) {
        const unknown = "not known here", total = rowsOf(step);
        let end = 0;
        const lines = rows.map(({ one, ids, prompt, ...row }) => {
            const text = texts.slice(end, (end += ids.length)).join("");
            return [one.label, h("span", { class: "told" }, ids.length ? text && visible(text) : unknown), prompt, row.position, row.count > 1 ? `${row.start} to ${row.start + row.count - 1}` : row.start,
                ids.length ? `[${ids.slice(0, LISTED).join(", ")}${ids.length > LISTED ? ", …" : ""}]` : unknown, `[${row.blocks.join(", ")}]`, row.chooses ? "yes" : "no"];
        });
        fill(this.detail,
            h("p", {}, h("b", {}, `Step ${count(step.step)}`), `: ${many(total, "row")} of ${count(engine.settings.max_num_batched_tokens)}, computed at once`, step.seconds !== undefined && ` in ${(1000 * step.seconds).toFixed(1)} ms`, "."),
            hint("A square is a row of the batch: one token of one request. Filled: of a prompt; hollow: just written; with a dot: the next token is drawn from it."),
            h("div", { class: "packed", "aria-hidden": true }, squares(rows, total)),
            scroller(table("The packed batch", ["request", "text", "of the prompt", "position", "rows", "token ids", "blocks", "draws"], lines)),
            step.others.rows > 0 && hint(`Grey: ${step.others.rows} rows of ${step.others.sequences} requests of others.`));
    }
}

function mark(kind, properties = {}, text = "") {
    return h("i", { class: kind, ...properties }, kind === "preempted" ? "×" : text);
}

function column(step) {
    const budget = engine.settings.max_num_batched_tokens, rows = rowsOf(step), { others } = step;
    const cells = [...step.did].map(([one, kind]) => {
        const begins = kind === "prompt" && !engine.steps[engine.steps.indexOf(step) - 1]?.did.get(one)?.startsWith("p");
        return mark(kind, { "--hue": hue(one), "--lane": one.lane + 3, title: `request ${one.label}: ${KINDS[kind]}` }, begins ? one.label : "");
    });
    const says = [...numbersOf(step), others.sequences].map((did, at) => did && `${many(did, "request")}: ${Object.values(KINDS)[at] ?? "of others"}`).filter(Boolean);
    const made = h("div", { role: "option", "aria-selected": "false", tabindex: -1, "aria-label": `Step ${step.step}, ${rows} of ${budget} tokens. ${says.join(", ")}` },
        h("span", { class: "budget", "--much": Math.min(1, rows / budget).toFixed(3), title: `${rows} of ${budget} tokens` }, rows),
        h("span", { class: "others", title: `${others.sequences} requests of others` }, others.sequences || ""), cells);
    made.step = step;
    return made;
}

/** The page's own rows of a step, with what is known of them. */
function batchOf(step) {
    const byNumber = new Map([...step.did.keys()].map((one) => [one.number, one]));
    return step.rows.map((row) => {
        const one = byNumber.get(row.sequence), known = one.prompt ?? (row.count > 1 ? row.position + row.count : row.position);
        return { ...row, one, prompt: Math.min(Math.max(known - row.position, 0), row.count), ids: engine.ids(one)?.slice(row.position, row.position + row.count) ?? [] };
    });
}

function squares(rows, total) {
    const made = Array.from({ length: total }, () => h("i", { class: "others" }));
    for (const { start, count: wide, one, prompt, position, chooses } of rows)
        for (let at = 0; at < wide; at++)
            made[start + at] = h("i", { class: at < prompt ? "prompt" : "decode", "--hue": hue(one), title: `request ${one.label}, position ${position + at}` }, chooses && at === wide - 1 ? "•" : "");
    return made;
}

function rowsOf(step) {
    return step.rows.reduce((sum, row) => sum + row.count, step.others.rows);
}

/** How many of the page's requests did what, in the order of KINDS. */
function numbersOf(step) {
    const did = [...step.did.values()];
    return Object.keys(KINDS).map((kind) => did.filter((one) => one === kind).length);
}

function tableOf(steps) {
    const rows = steps.map((step) => [step.step, step.seconds === undefined ? "" : (1000 * step.seconds).toFixed(1), rowsOf(step), ...numbersOf(step), step.others.sequences, step.others.rows, step.waiting]);
    return table(`The last ${steps.length} steps`, ["step", "ms", "tokens", ...Object.values(KINDS), "of others", "their tokens", "waiting in all"], rows);
}

class Roofline extends EngineView {
    says() {
        return "To write one token, all weights must come from memory, and the keys and values of the text: that sets a roof on the speed. Requests of the same step share one reading of the weights, so the roof rises with them. Send a dozen, and compare.";
    }

    build() {
        this.facts = h("p");
        this.measure = h("button", { onclick: () => this.ask() }, "Measure the memory");
        this.said = h("span", { class: "hint", role: "status" });
        this.picture = h("div");
        this.parts = h("div");
        this.twin = lazyTwin(() => this.table());
        fill(this,
            this.lead, this.bar.element, this.facts, h("div", { class: "actions" }, this.measure, this.said), this.picture, this.twin.element, this.parts);
    }

    async ask() {
        this.measure.disabled = true;
        this.said.textContent = "This takes a moment …";
        try {
            engine.machine = await ask("/inspect/roofline", {});
            this.said.textContent = engine.machine.bandwidth === null ? "Memory is measured while nothing runs. Try again." : "";
        } catch (error) {
            this.said.textContent = error.message;
        }
        this.measure.disabled = false;
        this.refresh();
    }

    draw() {
        const { machine } = engine;
        this.measure.hidden = !machine || machine.bandwidth !== null;
        if (!machine) return;
        fill(this.facts, "A step reads ", h("b", {}, size(machine.weight_bytes)), " of weights once, and for each request ", h("b", {}, size(machine.kv_bytes_per_token)), " of the cache per token of its text. This machine's memory delivers ",
            machine.bandwidth === null ? "… (not measured yet)" : h("b", {}, `${(machine.bandwidth / 1e9).toFixed(1)} GB/s`), machine.bandwidth !== null && ` (measured once, with ${many(machine.threads, "thread")}; other programs make it less)`, ".");
        this.drawRoof(groupsOf(engine.steps, machine), machine);
        this.drawParts(machine);
    }

    drawRoof(groups, machine) {
        const points = groups.flatMap((group) => group.rates.map((rate) => [group.readers, rate]));
        if (!points.length) return fill(this.picture, hint(EMPTY));
        const width = Math.max(280, this.picture.clientWidth), most = Math.max(4, ...groups.map((group) => group.readers + 1));
        const context = groups.reduce((sum, group) => sum + group.context, 0) / groups.reduce((sum, group) => sum + group.steps * group.readers, 0);
        const roof = machine.bandwidth && ((readers) => roofOf(readers, readers * context, machine));
        const rates = points.map(([, rate]) => rate), top = 1.08 * Math.max(...rates, roof ? roof(most) : 0);
        const x = (readers) => LEFT + (readers / most) * (width - LEFT - 12), y = (rate) => HEIGHT - BELOW - (rate / top) * (HEIGHT - BELOW - ABOVE);
        const line = roof && Array.from({ length: 41 }, (_, at) => (at / 40) * most).map((readers) => `${x(readers).toFixed(1)},${y(readers && roof(readers)).toFixed(1)}`).join(" ");
        const best = groups.at(-1), label = `${many(best.readers, "reader")} at once: ${rounded(best.rate)} tokens per second${roof ? `, ${percent(best.rate / best.roof)} of the roof` : ""}`;
        const every = Math.ceil(most / 12), ticks = Array.from({ length: most + 1 }, (_, at) => at).filter((at) => at && at % every === 0);
        fill(this.picture, h("p", {}, h("b", {}, label), "."),
            s("svg", { class: "roofs", role: "img", "aria-label": label, width, height: HEIGHT },
                levels(top).map((rate) => [s("line", { class: "grid", x1: LEFT, x2: width, y1: y(rate), y2: y(rate) }), s("text", { x: LEFT - 6, y: y(rate) + 4, "text-anchor": "end" }, rounded(rate))]),
                ticks.map((at) => s("text", { x: x(at), y: HEIGHT - BELOW + 16, "text-anchor": "middle" }, at)),
                s("text", { x: LEFT, y: HEIGHT - 2 }, "requests that write in the same step"), s("text", { x: 0, y: 10 }, "tokens per second"),
                line && s("polyline", { class: "roof", points: line }),
                line && s("text", { class: "roof-name", x: x(most) - 4, y: Math.max(24, y(roof(most)) - 8), "text-anchor": "end" }, "the roof: bandwidth ÷ bytes per token"),
                points.map(([readers, rate]) => s("circle", { class: "point", cx: x(readers), cy: y(rate), r: 3 })),
                groups.map((group) => s("circle", { class: "median", cx: x(group.readers), cy: y(group.rate), r: 5 }, s("title", {}, `${group.readers}: ${rounded(group.rate)} tokens/s, the median of ${group.steps} steps`)))),
            hint("A faint point is a step that only writes, a full one the median of all with as many requests. ", roof ? "What is missing to the roof is arithmetic, waiting and Python. A model that fits into the processor's caches can be above it." : "The roof appears once the memory is measured."));
    }

    drawParts(machine) {
        if (!machine.phases) return fill(this.parts, hint(`${machine.runner} does not time its parts.`));
        const steps = engine.steps.filter((step) => step.phases && writes(step));
        if (!steps.length) return fill(this.parts);
        const total = sum(steps, (step) => step.seconds), rows = machine.phases.map((name) => [name, PHASES[name] ?? "", sum(steps, (step) => step.phases[name])]);
        rows.push(["the rest", "scheduling, sampling, text: outside the model", total - sum(rows, (row) => row[2])]);
        return fill(this.parts, h("table", { class: "bars" },
            h("caption", {}, `Where the time of a step goes: the mean of ${many(steps.length, "step")} that only write`),
            head(["part", "what it does", "ms", "share"]),
            h("tbody", {}, rows.map(([name, says, seconds]) => h("tr", {}, h("td", {}, name), h("td", {}, h("small", {}, says)),
                h("td", { class: "number" }, ((1000 * seconds) / steps.length).toFixed(2)), h("td", { class: "before", "--p": Math.max(0, seconds / total).toFixed(4) }, percent(Math.max(0, seconds / total))))))));
    }

    table() {
        const { machine } = engine, groups = machine ? groupsOf(engine.steps, machine) : [];
        return table("Steps that only write, by how many requests write at once", ["requests", "steps", "tokens/s", "bytes per step", "roof, tokens/s", "of the roof"],
            groups.map((group) => [group.readers, group.steps, rounded(group.rate), size(group.bytes), group.roof ? rounded(group.roof) : "not measured", group.roof ? percent(group.rate / group.roof) : ""]));
    }
}

/** Whether each request of the step has one row, which brings a token. */
function writes(step) {
    return step.rows.every((row) => row.count === 1 && row.chooses) && step.others.rows === step.others.sequences && step.others.tokens === step.others.rows;
}

/** By number of requests: [{readers, steps, rates: each step's tokens/s, rate: the median, context: tokens, summed, bytes, roof}] */
function groupsOf(steps, machine) {
    const groups = new Map();
    for (const step of steps.filter(writes)) {
        const readers = step.rows.length + step.others.rows, group = groups.get(readers) ?? { readers, rates: [], context: 0 };
        group.rates.push(readers / step.seconds);
        group.context += sum(step.rows, (row) => row.position + 1) + step.others.context;
        groups.set(readers, group);
    }
    return [...groups.values()].sort((a, b) => a.readers - b.readers).map((group) => {
        const steps = group.rates.length, sorted = [...group.rates].sort((a, b) => a - b);
        return { ...group, steps, rate: (sorted[(steps - 1) >> 1] + sorted[steps >> 1]) / 2, bytes: bytesOf(group.context / steps, machine), roof: machine.bandwidth && roofOf(group.readers, group.context / steps, machine) };
    });
}

/** What a step reads whose requests attend to so many tokens in all. */
function bytesOf(context, machine) {
    return machine.weight_bytes + context * machine.kv_bytes_per_token;
}

function roofOf(readers, context, machine) {
    return (readers * machine.bandwidth) / bytesOf(context, machine);
}

function sum(all, of) {
    return all.reduce((so, one) => so + of(one), 0);
}

/** Round numbers from 0 to below the top. */
function levels(top) {
    const power = 10 ** Math.floor(Math.log10(top / 3)), every = power * [1, 2, 5].findLast((times) => times * power <= top / 3);
    return Array.from({ length: Math.floor(top / every) + 1 }, (_, at) => at * every);
}

function rounded(rate) {
    return rate && rate < 100 ? rate.toFixed(1) : count(Math.round(rate));
}

function size(bytes) {
    const [unit, name] = bytes >= 1e9 ? [1e9, "GB"] : bytes >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
    return `${(bytes / unit).toFixed(1)} ${name}`;
}

customElements.define("nl-blocks", Blocks);
customElements.define("nl-timeline", Timeline);
customElements.define("nl-roofline", Roofline);
