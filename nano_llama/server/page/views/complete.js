// <nl-complete>: a prompt, and how the model goes on. Tests: tests/page/test_page.py.

import { fill, h } from "../lib/dom.js";
import { newRun } from "../lib/run.js";

export class Complete extends HTMLElement {
    /** desk: what all parts of the page share (main.js). */
    show(desk) {
        this.desk = desk;
        const { store } = desk, remember = () => store.set({ prompt: this.prompt.value, path: "", run: false });
        this.prompt = h("textarea", { rows: 4, id: "prompt", spellcheck: "false", value: store.state.prompt, oninput: remember, placeholder: "Once upon a time" });
        this.prompt.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.write();
        });
        this.go = h("button", { class: "primary", onclick: () => (desk.run?.running ? desk.run.stop() : this.write()) }, "Continue");
        this.copy = h("button", { hidden: true, onclick: () => desk.copy(this.prompt.value + desk.run.text) }, "Copy");
        this.again = h("button", { hidden: true, title: "R", onclick: () => this.resample() }, "Another seed");
        this.note = h("p", { class: "hint", role: "status" });
        this.river = document.createElement("nl-river");
        this.sliders = document.createElement("nl-settings");
        this.replaceChildren(
            h("label", { for: "prompt" }, "Text that the model continues"), this.prompt,
            h("div", { class: "actions" }, this.go, this.again, this.copy, h("span", { class: "hint" }, "Ctrl + Enter")),
            h("details", { class: "sampling" }, h("summary", {}, "Sampling"), this.sliders),
            this.river, this.note);
        this.sliders.show(store, desk.SETTINGS);
        desk.addEventListener("run", () => this.refresh());
    }

    get source() {
        return { prompt: this.prompt.value };
    }

    async write() {
        const { desk } = this, { state } = desk.store;
        if (!this.prompt.value) this.prompt.value = this.prompt.placeholder;
        desk.store.set({ prompt: this.prompt.value, at: -1, path: "", run: true });
        const run = newRun(state, desk.constraint());
        desk.start(run, true);
        await run.write({ prompt: this.prompt.value, maxTokens: state.max_tokens });
    }

    resample() {
        this.desk.store.set({ seed: Math.floor(Math.random() * 1e6) });
        return this.write();
    }

    /** Go on from a branch. */
    async follow(run) {
        await run.write({ maxTokens: this.desk.store.state.max_tokens });
    }

    refresh() {
        const { run } = this.desk;
        if (this.hidden) return;
        if (!run) return fill(this.river), void (this.river.run = null);
        this.go.textContent = run.running ? "Stop" : "Continue";
        this.copy.hidden = this.again.hidden = run.running || !run.tokens.length;
        this.river.show(run, this.desk.store.state.at);
        this.note.className = run.error ? "error" : "hint";
        this.note.textContent = run.error ? run.error.message : run.running ? "" : ended(run);
    }

    focusToken() {
        this.river.focusToken();
    }
}

/** Why a text ends, and how to read its colours. */
export function ended(run) {
    const reasons = { length: "as many as were asked for", stop: "the model ended the text", "stopped by you": "stopped by you" };
    const given = run.given ? `, after the ${run.given} that the branch began with` : "";
    return `${run.tokens.length - run.given} tokens: ${reasons[run.finish] ?? run.finish}${given}. The darker one is, the more it surprised the model; choose one to see why it stands there.`;
}

customElements.define("nl-complete", Complete);
