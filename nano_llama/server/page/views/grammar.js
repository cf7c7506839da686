// <nl-grammar>: writing under a rule. The rule is the page's own for everything written next; at an open token it shows
// how many of the vocabulary may come, and what was struck out. View 12. Tests: tests/page/test_page.py.

import { h, table, twin } from "../lib/dom.js";
import { inspect } from "../lib/run.js";
import { count, percent, visible } from "../lib/text.js";

const FORMS = {
    "": ["no rule", ""],
    choice: ["one of these lines", "yes\nno\nmaybe"],
    regex: ["a regular expression", "[0-9]{1,2}:[0-9]{2}"],
    json: ["JSON of a schema", '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}}, "required": ["name", "age"]}'],
    grammar: ["a grammar", 'start: ("ha" | "ho")+ "!"'],
};
const LISTED = 20;

export class Grammar extends HTMLElement {
    show({ run, at, store }) {
        if (!this.form) this.build(store);
        this.inspect(run, at);
    }

    build(store) {
        this.form = h("select", { id: "form" }, Object.entries(FORMS).map(([name, [label]]) => h("option", { value: name }, label)));
        this.form.value = Object.hasOwn(FORMS, store.state.form) ? store.state.form : "";
        this.rule = h("textarea", { rows: 3, spellcheck: "false", "aria-label": "The rule", value: store.state.rule, oninput: () => store.set({ rule: this.rule.value }) });
        this.rule.hidden = !this.form.value;
        this.form.addEventListener("change", () => {
            this.rule.value = FORMS[this.form.value][1];
            this.rule.hidden = !this.form.value;
            store.set({ form: this.form.value, rule: this.rule.value });
        });
        this.here = h("div");
        this.replaceChildren(h("label", { for: "form" }, "What is written next must be"), this.form, this.rule, this.here);
    }

    async inspect(run, at) {
        const asked = (this.asked = {}), ruled = run && Object.keys(run.constraint).length;
        if (!ruled || !run.tokens[at]) return this.here.replaceChildren(h("p", { class: "hint" }, ruled ? "Open a token to see what the rule left of the vocabulary there." : "Choose a rule and write: the model goes on choosing, among what the rule allows."));
        let answer;
        try {
            answer = await inspect(run.inspection(at, run.settings));
        } catch (error) {
            return asked === this.asked && this.here.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
        }
        if (asked !== this.asked) return;
        const cut = answer.cuts.find(({ name }) => name === "constraint") ?? { left: answer.vocab_size, mass: 1 }, { top } = answer;
        const rows = top.ids.slice(0, LISTED).map((id, i) => ({ id, text: top.texts[i] === null ? "part of a character" : visible(top.texts[i]), p: Math.exp(top.logits[i] - answer.logsumexp), out: top.cut_by[i] === "constraint" }));
        this.here.replaceChildren(
            h("p", {}, h("b", { class: "big" }, count(cut.left)), ` of ${count(answer.vocab_size)} tokens may come here`, cut.left === 1 ? ": the rule alone decides, and the model has no say." : `. The model itself would have given them ${percent(cut.mass)}.`),
            h("p", { class: "words", "aria-hidden": true }, rows.map((row) => h("span", { class: row.out ? "chip out" : "chip", title: percent(row.p) }, row.text))),
            twin(table("The model's likeliest tokens under the rule", ["token", "id", "the model", "the rule"], rows.map((row) => [row.text, row.id, percent(row.p), row.out ? "struck out" : "allowed"]))));
    }
}

/** The fields of a request under the rule of a state. */
export function constraintOf({ form, rule }) {
    if (!form || !Object.hasOwn(FORMS, form) || !rule) return {};
    if (form === "choice") return { structured_outputs: { choice: rule.split("\n").filter(Boolean) } };
    return { structured_outputs: { [form]: rule } };
}

customElements.define("nl-grammar", Grammar);
