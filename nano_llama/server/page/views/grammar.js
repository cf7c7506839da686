// <nl-grammar>: writing under a rule. The rule is the page's own for everything written next; at an open token it shows
// how many of the vocabulary may come, and what was struck out; over the whole text, where the rule alone decided. View 12.
// Tests: tests/page/test_page.py, tests/page/test_grammar.py.

import { answering, breaks, count, fill, h, hint, nameOf, percent, table, twin, visible } from "../lib/dom.js";
import { inspect } from "../lib/run.js";

const FORMS = {
    "": ["no rule", ""],
    choice: ["one of these lines", "yes\nno\nmaybe"],
    regex: ["a regular expression", "[0-9]{1,2}:[0-9]{2}"],
    json: ["JSON of a schema", '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}}, "required": ["name", "age"]}'],
    grammar: ["a grammar", 'start: ("ha" | "ho")+ "!"'],
};
const LISTED = 20, FOLLOWED = 64, NARROW = 10; // tokens

class Grammar extends HTMLElement {
    show({ run, at, store }) {
        if (!this.form) this.build(store);
        this.inspect(run, at);
        this.follow(run);
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
        this.bound = h("div");
        fill(this, h("label", { for: "form" }, "What is written next must be"), this.form, this.rule, this.here, this.bound);
    }

    inspect(run, at) {
        const ruled = run && Object.keys(run.constraint).length;
        this.asked = null;
        if (!ruled || !run.tokens[at]) return fill(this.here, hint(ruled ? "Open a token to see what the rule left of the vocabulary there." : "Choose a rule and write: the model chooses among what it allows."));
        return answering(this, this.here, "The server is asked …", async (still) => this.draw(await still(inspect(run.inspection(at, run.settings)))));
    }

    draw(answer) {
        const left = leftBy(answer), { top } = answer;
        const all = top.ids.map((id, i) => ({ id, text: nameOf(top.texts[i]), p: Math.exp(top.logits[i] - answer.logsumexp), out: top.cut_by[i] === "constraint" }));
        const allowed = all.filter((row) => !row.out).slice(0, LISTED), rows = all.filter((row, i) => i < LISTED || allowed.includes(row));
        const chips = (says, out) => h("p", { class: "words", "aria-hidden": true }, h("small", {}, says), rows.filter((row) => row.out === out).map((row) => h("span", { class: out ? "chip out" : "chip", title: percent(row.p) }, row.text)));
        fill(this.here,
            h("p", {}, h("b", { class: "big" }, count(left.count)), ` of ${count(answer.vocab_size)} tokens may come here`, left.count === 1 ? ": the rule alone decides, and the model has no say." : `. The model itself would have given them ${percent(left.mass)}.`),
            chips(allowed.length < left.count ? "allowed, the likeliest:" : "allowed:", false), allowed.length < rows.length && chips("struck out, the likeliest:", true),
            twin(table("The model's likeliest tokens under the rule", ["token", "id", "the model", "the rule"], rows.map((row) => [row.text, row.id, percent(row.p), row.out ? "struck out" : "allowed"]))));
    }

    /** Ask of a whole text how much the rule left at each of its tokens, one after the other. */
    follow(run) {
        if (!run || run.running || !run.tokens.length || !Object.keys(run.constraint).length) return (this.followed = this.bound.asked = null), fill(this.bound);
        if (run === this.followed) return undefined;
        this.followed = run;
        fill(this.bound);
        return answering(this.bound, this.bound, "The server is asked where the rule alone decided …", async (still) => {
            const left = [], most = Math.min(run.tokens.length, FOLLOWED);
            while (left.length < most) {
                left.push(leftBy(await still(inspect(run.inspection(left.length, run.settings)))));
                if (this.closest("[hidden]")) return (this.followed = null); // asked for again when it is seen again
            }
            return this.stretches(run.tokens.slice(0, most), left);
        });
    }

    /** The text, in which the forced stretches are told from what the model chose. */
    stretches(tokens, left) {
        const texts = tokens.map(({ text }) => (text === null ? "▯" : text || "∅")), runs = stretchesOf(texts, left), forced = left.filter((one) => one.count === 1).length;
        const stretches = runs.filter((one) => one.room === "forced").length, narrow = left.filter((one) => one.count > 1 && one.count <= NARROW).length;
        fill(this.bound,
            h("p", {}, h("b", {}, forced), ` of ${tokens.length} tokens were forced${stretches > 1 ? `, in ${stretches} stretches` : ""}: the rule left a single one.`, narrow > 0 && ` For ${narrow} more it left at most ${NARROW}.`, ` The model chose ${forced ? "the other" : "all"} ${tokens.length - forced}.`),
            h("p", { class: "tokens bound", "aria-hidden": true }, runs.map((one) => h("span", { class: one.room }, one.texts.map((text) => (breaks(text) ? h("span", { class: "break" }, text) : text))))),
            hint(`Thick line: forced. Dotted: at most ${NARROW} tokens were allowed. Shaded: the model had room.`),
            twin(table("What the rule left at each token", ["#", "token", "allowed", "the model would have given them", "by"],
                texts.map((text, at) => [at + 1, visible(text), count(left[at].count), percent(left[at].mass), left[at].count === 1 ? "the rule" : "the model"]))));
    }
}

/** Consecutive tokens to which the rule left one token, a few, or many: [{room, texts}]. */
function stretchesOf(texts, left) {
    const made = [];
    texts.forEach((text, at) => {
        const room = left[at].count === 1 ? "forced" : left[at].count <= NARROW ? "narrow" : "free";
        if (made.at(-1)?.room !== room) made.push({ room, texts: [] });
        made.at(-1).texts.push(text);
    });
    return made;
}

/** What a rule left at a position: how many tokens, and the mass that the model gives them. */
function leftBy(answer) {
    const cut = answer.cuts.find(({ name }) => name === "constraint");
    return { count: cut?.left ?? answer.vocab_size, mass: cut?.mass ?? 1 };
}

customElements.define("nl-grammar", Grammar);
