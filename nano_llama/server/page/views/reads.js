// <nl-reads>: what the model really reads: the text (a conversation: rendered by its template) as tokens, ids, bytes,
// and the merges that made one, one by one. View 7. Tests: tests/page/test_page.py.

import { ask } from "../lib/api.js";
import { answering, count, fill, h, hint, listbox, many, select, table, twin, visible } from "../lib/dom.js";

class Reads extends HTMLElement {
    /** source: {prompt} or {messages}. */
    show({ source, store }) {
        this.asked = null;
        this.store = store;
        if (source.messages ? !source.messages.length : !source.prompt) return fill(this, hint("Type something: here you see what the model gets to read of it."));
        return answering(this, this, "The server reads it …", async (still) => this.draw(await still(ask("/inspect/tokens", source)), Boolean(source.messages)));
    }

    draw({ text, tokens }, templated) {
        const bytes = tokens.reduce((sum, token) => sum + token.bytes.length, 0);
        const detail = h("div", { "aria-live": "polite" }, hint("Choose a piece to see its bytes and the merges that made it."));
        const pieces = lines(tokens).map((line) => h("div", { role: "group", class: "pieces" }, line.map((at) => this.piece(tokens[at], at))));
        const list = listbox({}, "The pieces that the model reads", pieces, (option) => {
            this.store.set({ place: Number(option.dataset.at) });
            open();
        });
        const open = () => {
            const { place } = this.store.state;
            if (!tokens[place]) return;
            select(list.querySelectorAll("[role=option]"), list.querySelector(`[data-at="${place}"]`));
            fill(detail, this.detail(tokens[place]));
        };
        open();
        const injected = tokens.some((token) => token.injected), special = tokens.filter((token) => token.special).length;
        fill(this,
            h("p", {}, `${count(bytes)} bytes become ${count(tokens.length)} numbers`, special ? `; ${special} of them are special tokens, which no text can spell` : "", "."),
            templated && hint("The chat template has put every message between marks."),
            list, detail,
            injected && hint("Dotted: a special token's name that was typed. To the model it is plain text."),
            twin(table("The pieces that the model reads", ["#", "piece", "id", "bytes", "kind"], tokens.map((token, at) => [at + 1, shown(token), token.id, hex(token.bytes), kind(token)])), this));
    }

    piece(token, at) {
        const classes = ["piece", token.special ? "special" : at % 2 ? "odd" : "even", token.injected && "injected"].filter(Boolean).join(" ");
        return h("span", { role: "option", class: classes, "aria-selected": "false", tabindex: at ? -1 : 0, "data-at": at, "aria-label": `${shown(token)}, id ${token.id}, ${kind(token)}` },
            h("span", {}, shown(token)), h("small", {}, token.id));
    }

    detail(token) {
        const lines = [h("p", {}, h("b", { class: "chip" }, shown(token)), ` is ${many(token.bytes.length, "byte")}: `, h("code", {}, hex(token.bytes)), ` and to the model the number ${token.id}.`)];
        if (token.special) lines.push(hint("A special token: one number from the start, made by no merge."));
        else if (token.merges?.length) {
            lines.push(h("ol", { class: "merges" }, token.merges.map(({ left, right, rank }) =>
                h("li", {}, h("span", { class: "chip" }, visible(left)), " + ", h("span", { class: "chip" }, visible(right)), " → ", h("span", { class: "chip" }, visible(joined(left, right, token))), h("small", {}, ` merge ${count(rank + 1)}`)))));
        } else if (token.merges) lines.push(hint("One of the pieces that all others are merged from."));
        return lines;
    }
}

/** The places of the tokens, line by line. */
function lines(tokens) {
    const made = [[]];
    tokens.forEach((token, at) => {
        made.at(-1).push(at);
        if (token.text?.endsWith("\n")) made.push([]);
    });
    return made.filter((line) => line.length);
}

/** Two pieces as one; "\\xc3" and "\\xaf" are the bytes of a character, which is whole now. */
function joined(left, right, token) {
    const text = left + right, written = /(\\x[0-9a-f]{2})+/g;
    if (!token.text || token.text.includes("\\x")) return text;
    return text.replace(written, (bytes) => {
        const decoded = new TextDecoder().decode(Uint8Array.from(bytes.match(/[0-9a-f]{2}/g), (two) => parseInt(two, 16)));
        return decoded.includes("\ufffd") ? bytes : decoded;
    });
}

function shown(token) {
    return token.text === null ? `‹${hex(token.bytes)}›` : visible(token.text);
}

function kind(token) {
    return token.special ? "special" : token.injected ? "plain text that spells a special token" : "text";
}

function hex(bytes) {
    return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

customElements.define("nl-reads", Reads);
