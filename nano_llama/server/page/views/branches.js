// <nl-branches>: the texts that grew from one beginning, as rows of blocks. Blocks that two of them share are dashed, and a
// branch says how many tokens the server read from kept blocks instead of computing them. View 3.
// Tests: tests/page/test_page.py.

import { h, rove, s, table, twin } from "../lib/dom.js";
import { count, visible } from "../lib/text.js";

const CELL = 14, GAP = 3; // px

export class Branches extends HTMLElement {
    /** runs: every text since the last new prompt, parents before their branches; its event: "pick" {run}. */
    show({ runs, run: shown, blockSize }) {
        if (!runs.length) return this.replaceChildren(h("p", { class: "hint" }, "Write something, open one of its tokens and choose another: a branch grows here."));
        const rows = runs.map((run) => ({ run, ...blocks(run, blockSize) })), most = Math.max(...rows.map((row) => row.total));
        const list = h("div", { class: "branches", role: "listbox", "aria-label": "Branches" }, rows.map((row) => this.row(row, runs, row.run === shown, most)));
        const pick = (option) => option && this.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail: { run: runs[Number(option.dataset.at)] } }));
        list.addEventListener("click", (event) => pick(event.target.closest("[role=option]")));
        list.addEventListener("keydown", (event) => event.key === "Enter" && pick(document.activeElement.closest("[role=option]")));
        rove(list, "[role=option]");
        const numbers = rows.map(({ run, total, shared }, at) => [at + 1, from(run, runs), total, shared, cached(run), run.usage ? run.usage.prompt_tokens - cached(run) : "…"]);
        this.replaceChildren(
            h("p", {}, `A cell is a block of ${blockSize} tokens. Dashed ones are shared, whole, with the text that it grew from: the server can keep them once.`),
            list,
            twin(table("Branches", ["#", "grew from", "blocks", "shared with it", "tokens read from kept blocks", "prompt tokens computed anew"], numbers)));
    }

    row({ run, total, shared }, runs, selected, most) {
        const at = runs.indexOf(run), perRow = 24, size = CELL + GAP, lines = Math.ceil(total / perRow);
        const cells = Array.from({ length: total }, (_, i) => s("rect", { class: i < shared ? "cell shared" : "cell", x: (i % perRow) * size, y: Math.floor(i / perRow) * size, width: CELL, height: CELL, rx: 3 }));
        const picked = run.tokens[run.given - 1]?.picked ? run.tokens[run.given - 1] : null;
        const tail = run.tokens.slice(run.given, run.given + 12).map((token) => token.text ?? "▯").join("");
        const says = picked ? `${from(run, runs)}, with ${visible(picked.text ?? "▯")}` : "the first text";
        const spared = run.usage && picked ? `${count(cached(run))} tokens read from kept blocks, ${count(run.usage.prompt_tokens - cached(run))} computed anew` : "";
        return h("div", { role: "option", tabindex: selected ? 0 : -1, "aria-selected": String(selected), "data-at": at },
            h("b", {}, `${at + 1}  `), says,
            s("svg", { width: Math.min(total, most, perRow) * size, height: lines * size, role: "img", "aria-label": `${total} blocks, ${shared} of them shared` }, cells),
            h("div", { class: "tail" }, tail), spared && h("small", {}, spared));
    }
}

/** How many blocks a text fills, and how many whole ones of them are its parent's too. */
function blocks(run, size) {
    const total = Math.ceil((run.promptIds.length + run.tokens.length) / size);
    return { total, shared: run.parent ? Math.floor((run.promptIds.length + run.parent.at) / size) : 0 };
}

function cached(run) {
    return run.usage?.prompt_tokens_details?.cached_tokens ?? 0;
}

function from(run, runs) {
    return run.parent ? `from ${runs.indexOf(run.parent.run) + 1} at token ${run.parent.at + 1}` : "—";
}

customElements.define("nl-branches", Branches);
