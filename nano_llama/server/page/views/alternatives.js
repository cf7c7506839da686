// <nl-alternatives>: what else could have stood at a position, before and after sampling. View 1's other half.
// Enter or 1-9 choose another token: "branch" {at, token}. Tests: tests/page/test_page.py.

import { h, rove } from "../lib/dom.js";
import { count, percent, visible } from "../lib/text.js";
import { inspect } from "../lib/run.js";

const SHOWN = 20;

export class Alternatives extends HTMLElement {
    async show({ run, at }) {
        const token = run?.tokens[at], asked = (this.asked = {});
        if (!token) return this.replaceChildren(h("p", { class: "hint" }, run ? "Choose a token of the text: click it, or walk with the arrow keys and press Enter." : "Write something, then choose one of its tokens: here you see what else could have stood there. New here? The tour, at the top, shows it all in eight steps."));
        let answer;
        try {
            answer = await inspect(run.inspection(at, run.settings));
        } catch (error) {
            return asked === this.asked && this.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
        }
        if (asked !== this.asked) return;
        this.dataset.at = at;
        const { top } = answer, shown = top.ids.slice(0, SHOWN).map((_, i) => i), chosen = top.ids.indexOf(token.id);
        if (chosen >= SHOWN) shown.push(chosen);
        const raw = (i) => Math.exp(top.logits[i] - answer.logsumexp);
        const rows = shown.map((i, place) => this.row(top, i, place, raw(i), token.id === top.ids[i], run, at));
        const rest = 1 - shown.reduce((sum, i) => sum + raw(i), 0), restAfter = 1 - shown.reduce((sum, i) => sum + top.p[i], 0);
        this.replaceChildren(
            h("p", {}, h("b", { class: "chip" }, visible(token.text ?? "▯")), ` stands at position ${count(answer.position)}. `,
                `The model was as undecided as among ${choices(Math.exp(answer.entropy))} equally likely tokens (${(answer.entropy / Math.LN2).toFixed(1)} bits).`),
            h("table", { class: "bars" },
                h("caption", {}, "What could have come here"),
                h("thead", {}, h("tr", {}, ["key", "token", "the model", "after sampling"].map((name) => h("th", { scope: "col" }, name)))),
                h("tbody", {}, rows),
                h("tfoot", {}, h("tr", {}, h("td"), h("td", {}, `the other ${count(answer.vocab_size - shown.length)}`), bar(Math.max(0, rest), "before"), bar(Math.max(0, restAfter), "after")))),
            h("p", { class: "hint" }, "Choose another token (1–9 or Enter) and the text goes on from there."));
        rove(this.querySelector("tbody"), "button");
    }

    row(top, i, place, p, chosen, run, at) {
        const text = top.texts[i], name = text === null ? "part of a character" : visible(text);
        const choose = () => this.dispatchEvent(new CustomEvent("branch", { bubbles: true, detail: { run, at, token: { id: top.ids[i], text } } }));
        const button = h("button", { class: "chip", tabindex: place ? -1 : 0, onclick: choose, "data-choice": place < 9 ? place + 1 : null, title: `id ${top.ids[i]}` }, name);
        return h("tr", { class: chosen ? "chosen" : top.cut_by[i] ? "cut" : null, "data-id": top.ids[i] },
            h("td", { class: "number" }, place < 9 ? place + 1 : ""), h("td", {}, button, chosen && h("small", {}, " written")),
            bar(p, "before"), top.cut_by[i] ? h("td", { class: "after" }, `cut by ${top.cut_by[i].replace("_", "-")}`) : bar(top.p[i], "after"));
    }
}

function choices(number) {
    return number < 10 ? number.toFixed(1) : count(Math.round(number));
}

function bar(p, kind) {
    return h("td", { class: kind, "--p": p.toFixed(5), "data-p": p }, percent(p));
}

customElements.define("nl-alternatives", Alternatives);
