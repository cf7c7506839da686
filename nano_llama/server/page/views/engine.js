// <nl-blocks>: the cache of keys and values, block by block: which of the page's requests hold it, which share it, what is
// kept for later. View 8. <nl-timeline>: the engine's steps side by side: who reads a piece of its prompt, who decodes, who
// waits, and how much of a step's budget is used; an open step shows its packed batch. View 9.
// Tests: tests/page/test_engine.py.

import { count, fill, h, hint, lazyTwin, listbox, many, select, table, visible } from "../lib/dom.js";
import { engine, EngineView, hue, textsOf } from "../lib/engine.js";

const ROUND = 32; // cells are added so many at a time
const TABLED = 60, LISTED = 6; // steps, and ids of a row
const KINDS = { prompt: "a piece of a prompt", decode: "one token written", waiting: "waiting", preempted: "blocks given to others" };

class Blocks extends EngineView {
    build(info) {
        const { block_size: size, num_blocks: all } = info.engine;
        this.counts = h("p", { class: "parts", role: "status" });
        this.grid = listbox({ class: "cells" }, "Blocks by number", [], (cell) => this.choose(cell));
        this.rest = hint();
        this.detail = h("div", { "aria-live": "polite" }, hint("Choose a block to see who holds it, and the text in it."));
        this.twin = lazyTwin(() => this.table());
        fill(this,
            h("p", {}, `The model keeps what it has read (keys and values) in ${count(all)} blocks of ${size} tokens. Every request has a list of blocks; where two texts begin alike, they hold the same ones. Send readers, or write something, and watch.`),
            this.bar.element, this.counts, this.grid,
            hint("A number is a request, ×2 means that two share the block; the tint, how full it is. A ring: a request found it here and did not compute it again. Dashed: its requests have ended."),
            this.rest, this.detail, this.twin.element);
    }

    draw() {
        const { num_blocks: all } = engine.settings, held = engine.blocks(), { kept } = engine, last = engine.steps.at(-1);
        const free = last?.blocks ?? { held: 0, kept: 0, empty: all };
        fill(this.counts, [["held by your requests", held.size, "mine"], ["held by others alone", Math.max(0, free.held - held.size), "others"], ["kept for a text that begins alike", free.kept, "kept"], ["empty", free.empty, "empty"]]
            .map(([name, value, kind]) => h("span", {}, h("b", { class: `tally ${kind}` }, count(value)), ` ${name}`)));
        const most = Math.max(2 * ROUND, ...held.keys(), ...kept.keys(), this.grid.children.length - 1);
        for (let at = this.grid.children.length; at < Math.min(all, Math.ceil((most + 1) / ROUND) * ROUND); at++)
            this.grid.append(h("div", { role: "option", "aria-selected": "false", tabindex: at ? -1 : 0, "data-at": at }));
        for (const cell of this.grid.children) this.paint(cell, held.get(Number(cell.dataset.at)), kept.get(Number(cell.dataset.at)));
        const left = all - this.grid.children.length;
        this.rest.textContent = left > 0 ? `… and ${count(left)} more blocks, up to number ${count(all - 1)}, that no request of this page has held.` : "";
        if (this.chosen !== undefined) this.describe(this.chosen);
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

    choose(cell) {
        select(this.grid.children, cell);
        this.chosen = Number(cell.dataset.at);
        this.told = null;
        this.describe(this.chosen);
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
    if (!held && !kept) return "not held by this page: empty, or of others, whose texts nobody sees";
    const users = usersOf(block), shared = users.length > 1 ? `; shared by the requests ${users.join(", ")}, computed once` : "";
    if (kept) return `kept, since the last request that had it (${kept.one.label}) has ended: the next text that begins alike will find it here${shared}`;
    return `held by request ${labelsOf(held.holders).join(", ")}${held.found ? "; found here, not computed again" : ""}${shared}`;
}

/** The numbers of all requests that ever had what is in a block. */
function usersOf(block) {
    return labelsOf([...engine.users.get(Number(block))]);
}

function labelsOf(requests) {
    return requests.map((one) => one.label).sort((a, b) => a - b);
}

class Timeline extends EngineView {
    build(info) {
        this.list = listbox({ class: "lanes" }, "Steps of the engine", [], (column) => this.choose(column));
        this.empty = hint("No step since you looked here. Send readers, or write something.");
        this.detail = h("div", { "aria-live": "polite" });
        this.twin = lazyTwin(() => tableOf(engine.steps.slice(-TABLED)));
        fill(this,
            h("p", {}, `The engine works in steps: here a column each. A step computes at most ${count(info.engine.max_num_batched_tokens)} tokens, its budget (the bar on top), for all requests together: a long prompt is read in pieces, beside those that write. Choose a step to see its batch.`),
            this.bar.element,
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
    }

    choose(chosen) {
        select(this.list.children, chosen);
        this.describe(chosen.step);
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
            const text = visible(texts.slice(end, (end += ids.length)).join(""));
            return [one.label, row.count > 1 ? `${row.start} to ${row.start + row.count - 1}` : row.start, row.position, prompt,
                ids.length ? `[${ids.slice(0, LISTED).join(", ")}${ids.length > LISTED ? ", …" : ""}]` : unknown, h("span", {}, text || (ids.length ? "" : unknown)), `[${row.blocks.join(", ")}]`, row.chooses ? "yes" : "no"];
        });
        fill(this.detail,
            h("p", {}, h("b", {}, `Step ${count(step.step)}`), `: ${many(total, "row")} of ${count(engine.settings.max_num_batched_tokens)}, computed at once`, step.seconds !== undefined && ` in ${(1000 * step.seconds).toFixed(1)} ms`, "."),
            hint("A square is a row of the batch: one token of one request. They stand side by side without padding. Filled: of a prompt; hollow: just written. With a dot: the next token is drawn from this row."),
            h("div", { class: "packed", "aria-hidden": true }, squares(rows, total)),
            h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The packed batch" },
                table("The packed batch", ["request", "rows", "position", "of the prompt", "token ids", "text", "blocks", "draws"], lines)),
            step.others.rows > 0 && hint(`Grey: ${step.others.rows} rows of ${step.others.sequences} requests of others, of which nothing else is shown.`));
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

customElements.define("nl-blocks", Blocks);
customElements.define("nl-timeline", Timeline);
