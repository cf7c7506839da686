// <nl-river>: a text as the tokens it was written in, tinted and underlined by surprisal. View 1.
// Left and right walk, Enter opens a token. Its events: "token" {at}. Tests: tests/page/test_page.py.

import { h, rove, table, twin } from "../lib/dom.js";
import { bits, percent, visible } from "../lib/text.js";

const MOST_BITS = 10; // the darkest tint: about 1 in 1,000

export class River extends HTMLElement {
    /** at: the open token, or -1. */
    show(run, at = -1) {
        if (run !== this.run) {
            this.run = run;
            this.list = h("div", { class: "tokens", role: "listbox", "aria-label": "The tokens of this text", "aria-orientation": "horizontal" });
            this.list.addEventListener("click", (event) => this.open(event.target.closest("[role=option]")));
            this.list.addEventListener("keydown", (event) => {
                if (event.key !== "Enter" && event.key !== " ") return;
                event.preventDefault();
                this.open(document.activeElement, true);
            });
            rove(this.list, "[role=option]");
            this.twin = h("div");
            this.replaceChildren(this.list, this.twin);
            this.tabled = this.at = null;
        }
        for (let i = this.list.children.length; i < run.tokens.length; i++) this.list.append(this.token(run.tokens[i], i));
        if (at !== this.at || !this.list.querySelector("[tabindex='0']")) this.select(at);
        if (!run.running && run.tokens.length && this.tabled !== run.tokens.length) {
            this.tabled = run.tokens.length;
            const open = this.twin.querySelector("details")?.open;
            this.twin.replaceChildren(twin(this.table()));
            if (open) this.twin.firstChild.open = true;
        }
    }

    select(at) {
        this.at = at;
        [...this.list.children].forEach((option, i) => {
            option.setAttribute("aria-selected", String(i === at));
            option.tabIndex = i === Math.max(0, at) ? 0 : -1;
        });
    }

    token(token, at) {
        const given = token.logprob === undefined, much = given ? 0 : Math.min(1, bits(token.logprob) / MOST_BITS);
        const shown = token.text ?? "▯";
        const says = token.picked ? "chosen by you" : given ? "" : `${percent(Math.exp(token.logprob))}, ${bits(token.logprob).toFixed(1)} bits`;
        return h("span", {
            role: "option", "aria-selected": "false", tabindex: -1, class: token.picked ? "token picked" : "token", "data-at": at, title: `${visible(token.text ?? "part of a character")}  ${says}`,
            "aria-label": `${token.text === null ? "part of a character" : visible(token.text)}, ${says}`, "--much": much.toFixed(3),
        }, shown === "" ? "∅" : shown);
    }

    table() {
        const rows = this.run.tokens.map(({ id, text, logprob, picked }, at) => [
            at + 1, text === null ? "part of a character" : visible(text), id,
            ...(picked || logprob === undefined ? ["chosen by you", ""] : [percent(Math.exp(logprob)), bits(logprob).toFixed(2)]),
        ]);
        return table("The tokens, as the model wrote them", ["#", "token", "id", "probability", "bits"], rows);
    }

    open(option, focus = false) {
        if (!option || option.getAttribute("role") !== "option") return;
        this.dispatchEvent(new CustomEvent("token", { bubbles: true, detail: { run: this.run, at: Number(option.dataset.at), option, focus } }));
    }

    /** Focus the token that is open. */
    focusToken() {
        this.list?.querySelector("[role=option][tabindex='0']")?.focus();
    }
}

customElements.define("nl-river", River);
