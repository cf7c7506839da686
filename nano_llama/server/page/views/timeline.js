// <nl-timeline>: the engine's steps side by side: who reads a piece of its prompt, who decodes, who waits, and how much of a
// step's budget is used. An open step shows its packed batch. View 9. Tests: tests/page/test_engine.py.

import { fill, h, lazyTwin, rove, table } from "../lib/dom.js";
import { engine, EngineView, hue, textsOf } from "../lib/engine.js";
import { engineBar } from "../lib/readers.js";
import { count, visible } from "../lib/text.js";

const TABLED = 60, LISTED = 6; // steps, and ids of a row
const KINDS = { prompt: "a piece of a prompt", decode: "one token written", waiting: "waiting", preempted: "blocks given to others" };

export class Timeline extends EngineView {
    build(info) {
        this.bar = engineBar();
        this.list = h("div", { class: "lanes", role: "listbox", "aria-label": "Steps of the engine", "aria-orientation": "horizontal" });
        this.list.addEventListener("click", ({ target }) => this.choose(target.closest("[role=option]")));
        rove(this.list, "[role=option]", (column) => this.choose(column));
        this.empty = h("p", { class: "hint" }, "No step since you looked here. Send readers, or write something.");
        this.detail = h("div", { "aria-live": "polite" });
        this.twin = lazyTwin(() => tableOf(engine.steps.slice(-TABLED)));
        fill(this,
            h("p", {}, `The engine works in steps: here a column each. A step computes at most ${count(info.engine.max_num_batched_tokens)} tokens, its budget (the bar on top), for all requests together: a long prompt is read in pieces, beside those that write. Choose a step to see its batch.`),
            this.bar.element,
            h("p", { class: "parts marks" }, Object.entries(KINDS).map(([kind, says]) => h("span", {}, mark(kind), ` ${says}`))),
            this.empty, this.list, this.detail, this.twin.element);
    }

    refresh() {
        this.bar.refresh();
        const { steps } = engine, { list } = this, follows = list.scrollLeft + list.clientWidth > list.scrollWidth - 40;
        this.empty.hidden = steps.length > 0;
        while (list.firstChild && !steps.includes(list.firstChild.step)) list.firstChild.remove();
        for (const step of steps.slice(list.children.length)) list.append(column(step));
        if (list.firstChild && !list.querySelector("[tabindex='0']")) list.firstChild.tabIndex = 0;
        if (follows) list.scrollLeft = list.scrollWidth;
        this.twin.refresh();
    }

    choose(chosen) {
        if (!chosen) return;
        for (const other of this.list.children) other.setAttribute("aria-selected", String(other === chosen)), (other.tabIndex = other === chosen ? 0 : -1);
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
            h("p", {}, h("b", {}, `Step ${count(step.step)}`), `: ${total} ${total === 1 ? "row" : "rows"} of ${count(engine.settings.max_num_batched_tokens)}, computed at once`, step.seconds !== undefined && ` in ${(1000 * step.seconds).toFixed(1)} ms`, "."),
            h("p", { class: "hint" }, "A square is a row of the batch: one token of one request. They stand side by side without padding. Filled: of a prompt; hollow: just written. With a dot: the next token is drawn from this row."),
            h("div", { class: "packed", "aria-hidden": true }, squares(rows, total)),
            h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The packed batch" },
                table("The packed batch", ["request", "rows", "position", "of the prompt", "token ids", "text", "blocks", "draws"], lines)),
            step.others.rows > 0 && h("p", { class: "hint" }, `Grey: ${step.others.rows} rows of ${step.others.sequences} requests of others, of which nothing else is shown.`));
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
    const says = [...numbersOf(step), others.sequences].map((many, at) => many && `${many} ${many === 1 ? "request" : "requests"}: ${Object.values(KINDS)[at] ?? "of others"}`).filter(Boolean);
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
    for (const { start, count: many, one, prompt, position, chooses } of rows)
        for (let at = 0; at < many; at++)
            made[start + at] = h("i", { class: at < prompt ? "prompt" : "decode", "--hue": hue(one), title: `request ${one.label}, position ${position + at}` }, chooses && at === many - 1 ? "•" : "");
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

customElements.define("nl-timeline", Timeline);
