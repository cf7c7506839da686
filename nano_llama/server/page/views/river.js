// View 1. <nl-river>: a text as the tokens it was written in, tinted and underlined by surprisal. Left and right walk, Enter
// opens a token: "token" {run, at}; before that, "near" {run, at}: somebody is at it. <nl-alternatives>: what else could
// have stood there, before and after sampling. Enter or 1-9 choose another token: "branch" {run, at, token}. View 3.
// <nl-branches>: the texts that grew from one beginning, as a tree of blocks. A block that several of them share is drawn
// once, and a branch says how many tokens the server read from kept blocks instead of computing them.
// Tests: tests/page/test_page.py, tests/page/test_branches.py, tests/page/test_while_writing.py.

import { answering, bits, breaks, count, fill, h, head, hint, listbox, nameOf, percent, rove, s, select, table, twin } from "../lib/dom.js";
import { inspect } from "../lib/run.js";

const MOST_BITS = 10; // the darkest tint: about 1 in 1,000
const SHOWN = 20; // alternatives
const ROW = 26, CELL = 14; // px of the tree

class River extends HTMLElement {
    /** at: the open token, or -1. */
    show(run, at = -1) {
        if (run !== this.run) {
            this.run = run;
            this.list = listbox({ class: "tokens" }, "The tokens of this text", [], (option, focus) => this.tell("token", option, focus), () => {});
            for (const kind of ["focusin", "pointerover"]) this.list.addEventListener(kind, ({ target }) => target.dataset.at && this.tell("near", target));
            this.twin = h("div");
            fill(this, this.list, this.twin);
            this.tabled = this.at = null;
        }
        for (let i = this.list.children.length; i < run.tokens.length; i++) this.list.append(this.token(run.tokens[i], i));
        if (at !== this.at || !this.list.querySelector("[tabindex='0']")) select(this.list.children, this.list.children[(this.at = at)]);
        if (!run.running && run.tokens.length && this.tabled !== run.tokens.length) {
            this.tabled = run.tokens.length;
            fill(this.twin, twin(this.table(), this.twin));
        }
    }

    token(token, at) {
        const given = token.logprob === undefined, much = given ? 0 : Math.min(1, bits(token.logprob) / MOST_BITS);
        const says = token.picked ? "chosen by you" : given ? "" : `${percent(Math.exp(token.logprob))}, ${bits(token.logprob).toFixed(1)} bits`;
        return h("span", {
            role: "option", "aria-selected": "false", tabindex: -1, class: `token${token.picked ? " picked" : ""}${breaks(token.text) ? " break" : ""}`, "data-at": at, title: `${nameOf(token.text)}  ${says}`,
            "aria-label": `${nameOf(token.text)}, ${says}`, "--much": much.toFixed(3),
        }, token.text === null ? "▯" : token.text || "∅");
    }

    table() {
        const rows = this.run.tokens.map(({ id, text, logprob, picked }, at) => [
            at + 1, nameOf(text), id,
            ...(picked || logprob === undefined ? ["chosen by you", ""] : [percent(Math.exp(logprob)), bits(logprob).toFixed(2)]),
        ]);
        return table("The tokens, as the model wrote them", ["#", "token", "id", "probability", "bits"], rows);
    }

    tell(event, option, focus) {
        this.dispatchEvent(new CustomEvent(event, { bubbles: true, detail: { run: this.run, at: Number(option.dataset.at), option, focus } }));
    }

    /** Focus the token that is open. */
    focusToken() {
        this.list?.querySelector("[role=option][tabindex='0']")?.focus();
    }
}

class Alternatives extends HTMLElement {
    show({ run, at }) {
        const token = run?.tokens[at];
        if (token && run === this.run && this.dataset.at === String(at)) return undefined; // and who stands in it stays
        this.asked = this.run = null;
        delete this.dataset.at;
        if (!token) return fill(this, hint(run && !run.error ? "Choose a token of the text: click it, or walk with the arrow keys and press Enter." : "Write something, then choose one of its tokens: here you see what else could have stood there. New here? The tour, at the top, shows it all in eight steps."));
        return answering(this, this, "The server is asked …", async (still) => this.draw(await still(inspect(run.inspection(at, run.settings))), token, run, at));
    }

    draw(answer, token, run, at) {
        this.run = run;
        this.dataset.at = at;
        const { top } = answer, shown = top.ids.slice(0, SHOWN).map((_, i) => i), chosen = top.ids.indexOf(token.id);
        if (chosen >= SHOWN) shown.push(chosen);
        const raw = (i) => Math.exp(top.logits[i] - answer.logsumexp);
        const rows = shown.map((i, place) => this.row(top, i, place, raw(i), token.id === top.ids[i], run, at));
        const rest = 1 - shown.reduce((sum, i) => sum + raw(i), 0), restAfter = 1 - shown.reduce((sum, i) => sum + top.p[i], 0);
        fill(this,
            h("p", {}, h("b", { class: "chip" }, nameOf(token.text)), ` stands at position ${count(answer.position)}. `,
                `The model was as undecided as among ${choices(Math.exp(answer.entropy))} equally likely tokens (${(answer.entropy / Math.LN2).toFixed(1)} bits).`),
            h("table", { class: "bars" },
                h("caption", {}, "What could have come here"),
                head(["key", "token", "the model", "after sampling"]),
                h("tbody", {}, rows),
                h("tfoot", {}, h("tr", {}, h("td"), h("td", {}, `the other ${count(answer.vocab_size - shown.length)}`), bar(Math.max(0, rest), "before"), bar(Math.max(0, restAfter), "after")))),
            hint("Choose another token (1–9 or Enter) and the text goes on from there."));
        rove(this.querySelector("tbody"), "button");
    }

    row(top, i, place, p, chosen, run, at) {
        const text = top.texts[i];
        const choose = () => this.dispatchEvent(new CustomEvent("branch", { bubbles: true, detail: { run, at, token: { id: top.ids[i], text } } }));
        const button = h("button", { class: "chip", tabindex: place ? -1 : 0, onclick: choose, "data-choice": place < 9 ? place + 1 : null, title: `id ${top.ids[i]}` }, nameOf(text));
        const remark = [text === null && `id ${top.ids[i]}`, chosen && "written"].filter(Boolean).join(", "); // parts of characters look alike
        return h("tr", { class: chosen ? "chosen" : top.cut_by[i] ? "cut" : null, "data-id": top.ids[i] },
            h("td", {}, place < 9 ? place + 1 : ""), h("td", {}, button, remark && h("small", {}, ` ${remark}`)),
            bar(p, "before"), top.cut_by[i] ? h("td", { class: "after" }, `cut by ${top.cut_by[i].replace("_", "-")}`) : bar(top.p[i], "after"));
    }
}

function choices(number) {
    return number < 10 ? number.toFixed(1) : count(Math.round(number));
}

function bar(p, kind) {
    return h("td", { class: kind, "--p": p.toFixed(5), "data-p": p }, percent(p));
}

class Branches extends HTMLElement {
    /** runs: every text since the last new prompt, parents before their branches; its event: "pick" {run}. */
    show({ runs, run: shown, blockSize }) {
        const none = runs.length < 2 && hint("Write something, open one of its tokens and choose another: a branch grows here.");
        if (!runs.length) return fill(this, none);
        const rows = runs.map((run) => ({ run, ...blocksOf(run, blockSize) })), all = rows.reduce((sum, row) => sum + row.total, 0), once = rows.reduce((sum, row) => sum + row.total - row.shared, 0);
        const pick = (option) => this.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail: { run: runs[Number(option.dataset.at)] } }));
        const list = listbox({ class: "branches", "aria-orientation": "vertical" }, "Branches", rows.map((row) => this.row(row, runs, row.run === shown)), pick, () => {});
        const numbers = rows.map(({ run, total, shared }, at) => [at + 1, from(run, runs), total, shared, cached(run), run.usage ? run.usage.prompt_tokens - cached(run) : "…"]);
        fill(this,
            h("p", {}, `A cell is a block of ${blockSize} tokens; those in full colour are shared: the server keeps them once for several texts.`,
                once < all && ` Together the texts have ${all} blocks; ${once} are enough.`),
            tree(rows, blockSize), list, none,
            twin(table("Branches", ["#", "grew from", "blocks", "shared with it", "tokens read from kept blocks", "prompt tokens computed anew"], numbers)));
    }

    row({ run }, runs, selected) {
        const at = runs.indexOf(run);
        const picked = run.tokens[run.given - 1]?.picked ? run.tokens[run.given - 1] : null;
        const tail = run.tokens.slice(run.given, run.given + 12).map((token) => token.text ?? "▯").join("");
        const says = picked ? `${from(run, runs)}, with ${nameOf(picked.text)}` : "the first text";
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
    return s("svg", { class: "tree", role: "img", "aria-label": `A tree of ${rows.length} texts; the table has its numbers`, height: lines.length * ROW }, lines.map(line));
}

/** How many blocks a text fills, and how many whole ones of them are its parent's too. */
function blocksOf(run, size) {
    const total = Math.ceil((run.promptIds.length + run.tokens.length) / size);
    return { total, shared: run.parent ? Math.floor((run.promptIds.length + run.parent.at) / size) : 0 };
}

function cached(run) {
    return run.usage?.prompt_tokens_details?.cached_tokens ?? 0;
}

function from(run, runs) {
    return run.parent ? `from ${runs.indexOf(run.parent.run) + 1} at token ${run.parent.at + 1}` : "—";
}

customElements.define("nl-river", River);
customElements.define("nl-alternatives", Alternatives);
customElements.define("nl-branches", Branches);
