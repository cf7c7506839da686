// <nl-branches>: the texts that grew from one beginning, as a tree of blocks. A block that several of them share is drawn
// once, and a branch says how many tokens the server read from kept blocks instead of computing them. View 3.
// Tests: tests/page/test_page.py.

import { h, rove, s, table, twin } from "../lib/dom.js";
import { count, visible } from "../lib/text.js";

const ROW = 26, CELL = 14; // px

export class Branches extends HTMLElement {
    /** runs: every text since the last new prompt, parents before their branches; its event: "pick" {run}. */
    show({ runs, run: shown, blockSize }) {
        if (!runs.length) return this.replaceChildren(h("p", { class: "hint" }, "Write something, open one of its tokens and choose another: a branch grows here."));
        const rows = runs.map((run) => ({ run, ...blocks(run, blockSize) })), all = rows.reduce((sum, row) => sum + row.total, 0), once = rows.reduce((sum, row) => sum + row.total - row.shared, 0);
        const list = h("div", { class: "branches", role: "listbox", "aria-label": "Branches" }, rows.map((row) => this.row(row, runs, row.run === shown)));
        const pick = (option) => option && this.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail: { run: runs[Number(option.dataset.at)] } }));
        list.addEventListener("click", (event) => pick(event.target.closest("[role=option]")));
        list.addEventListener("keydown", (event) => event.key === "Enter" && pick(document.activeElement.closest("[role=option]")));
        rove(list, "[role=option]");
        const numbers = rows.map(({ run, total, shared }, at) => [at + 1, from(run, runs), total, shared, cached(run), run.usage ? run.usage.prompt_tokens - cached(run) : "…"]);
        this.replaceChildren(
            h("p", {}, `A cell is a block of ${blockSize} tokens, and a branch begins where it left its text. Dark ones are shared whole: the server can keep them once for several texts.`,
                once < all && ` Together the ${runs.length} texts have ${all} blocks; ${once} are enough.`),
            tree(rows, blockSize), list,
            twin(table("Branches", ["#", "grew from", "blocks", "shared with it", "tokens read from kept blocks", "prompt tokens computed anew"], numbers)));
    }

    row({ run }, runs, selected) {
        const at = runs.indexOf(run);
        const picked = run.tokens[run.given - 1]?.picked ? run.tokens[run.given - 1] : null;
        const tail = run.tokens.slice(run.given, run.given + 12).map((token) => token.text ?? "▯").join("");
        const says = picked ? `${from(run, runs)}, with ${visible(picked.text ?? "▯")}` : "the first text";
        const spared = run.usage && picked ? `${count(cached(run))} tokens read from kept blocks, ${count(run.usage.prompt_tokens - cached(run))} computed anew` : "";
        return h("div", { role: "option", tabindex: selected ? 0 : -1, "aria-selected": String(selected), "data-at": at },
            h("b", {}, `${at + 1}  `), says,
            h("div", { class: "tail" }, tail), spared && h("small", {}, spared));
    }
}

/** Parents above their branches; of one text's branches the later ones first, so that no line crosses a row. */
function ordered(rows, parent = null) {
    const own = rows.filter(({ run }) => (run.parent?.run ?? null) === parent).sort((a, b) => b.shared - a.shared);
    return own.flatMap((row) => [row, ...ordered(rows, row.run)]);
}

/** The tree: from left to right the tokens, a line a text, each block where it is kept. */
function tree(rows, size) {
    const lines = ordered(rows), length = ({ run }) => run.promptIds.length + run.tokens.length, longest = Math.max(...lines.map(length));
    const x = (token) => `${(100 * token) / longest}%`, rowOf = (run) => lines.find((row) => row.run === run);
    const keeper = (row, block) => (block < row.shared ? keeper(rowOf(row.run.parent.run), block) : row);
    const line = (row, at) => {
        const number = rows.indexOf(row) + 1, top = at * ROW, above = row.run.parent && lines.indexOf(keeper(rowOf(row.run.parent.run), Math.max(0, row.shared - 1)));
        const cells = Array.from({ length: row.total - row.shared }, (_, i) => {
            const block = row.shared + i, texts = rows.filter((one) => block < one.total && keeper(one, block) === row).map((one) => rows.indexOf(one) + 1);
            const many = texts.length > 1, from = block * size, to = Math.min(from + size, length(row));
            return s("svg", { x: x(from), y: top + 4, width: x(to - from), height: CELL }, s("rect", { class: many ? "cell shared" : "cell", width: "100%", height: CELL, rx: 3, "data-block": block, "data-texts": texts.join(" ") },
                s("title", {}, `block ${block + 1}, ${many ? `shared by the texts ${texts.join(", ")}` : `of text ${number}`}`)));
        });
        const fork = row.run.parent && s("g", {},
            s("line", { class: "fork", x1: x(row.shared * size), x2: x(row.shared * size), y1: above * ROW + 4 + CELL, y2: top + 4 + CELL }),
            s("circle", { class: "chosen", cx: x(row.run.promptIds.length + row.run.parent.at + 0.5), cy: top + 4 + CELL / 2, r: 3.5 }, s("title", {}, "the token that was chosen")));
        return [s("text", { x: -22, y: top + 16 }, number), cells, fork];
    };
    const says = lines.map((row) => `text ${rows.indexOf(row) + 1}: ${row.total} blocks, ${row.shared} of them shared with the text that it grew from`).join("; ");
    return s("svg", { class: "tree", role: "img", "aria-label": `A tree of ${rows.length} texts. ${says}`, width: "100%", height: lines.length * ROW },
        s("svg", { class: "field", x: 24, height: lines.length * ROW }, lines.map(line)));
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
