// <nl-chat>: a conversation. Any turn can be edited or written anew; several conversations are kept in the browser.
// Tests: tests/page/test_chat.py.

import * as kept from "../lib/conversations.js";
import { h } from "../lib/dom.js";
import { newRun } from "../lib/run.js";
import { ended } from "./complete.js";

export class Chat extends HTMLElement {
    show(desk) {
        this.desk = desk;
        this.all = kept.load();
        this.open = this.all[0] ?? kept.fresh();
        if (desk.store.state.prompt || desk.store.state.system) this.open = this.linked = { ...kept.fresh(), system: desk.store.state.system };
        this.choice = h("select", { "aria-label": "Conversations", onchange: () => this.pick(this.choice.value) });
        this.system = h("textarea", { rows: 2, id: "system", oninput: () => this.edit({ system: this.system.value }) });
        this.list = h("ol", { class: "turns" });
        this.message = h("textarea", { rows: 3, id: "message", value: desk.store.state.prompt, placeholder: "Why is the sky blue?" });
        this.message.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            this.send();
        });
        this.go = h("button", { class: "primary", onclick: () => (this.desk.run?.running ? this.desk.run.stop() : this.send()) }, "Send");
        this.note = h("p", { class: "hint", role: "status" });
        this.sliders = document.createElement("nl-settings");
        this.replaceChildren(
            h("div", { class: "actions" }, this.choice, h("button", { onclick: () => this.start() }, "New"),
                h("button", { onclick: () => this.remove() }, "Delete"), h("button", { onclick: () => this.export() }, "Export")),
            h("details", { class: "sampling" }, h("summary", {}, "System prompt and sampling"), h("label", { for: "system" }, "System prompt"), this.system, this.sliders),
            this.list, this.note,
            h("label", { for: "message" }, "Your message"), this.message,
            h("div", { class: "actions" }, this.go, h("span", { class: "hint" }, "Enter sends, Shift + Enter begins a line")));
        this.sliders.show(desk.store, desk.SETTINGS);
        desk.addEventListener("run", () => this.refresh());
        this.draw();
    }

    get source() {
        const written = this.message.value ? [{ role: "user", content: this.message.value }] : [];
        return { messages: [...messagesOf(this.open, this.open.turns.length), ...written] };
    }

    // -- the conversations

    edit(changes) {
        Object.assign(this.open, changes);
        this.save();
    }

    /** All with a turn; what a link began, once somebody goes on with it. */
    save() {
        this.all = [this.open, ...this.all.filter((one) => one !== this.open)].filter((one) => one.turns.length > (one === this.linked ? 2 : 0));
        if (!kept.save(this.all)) this.note.textContent = "This browser keeps no more conversations: delete some, or export this one.";
    }

    pick(id) {
        this.desk.run?.stop();
        this.open = this.all.find((one) => one.id === id) ?? this.open;
        this.draw();
    }

    start() {
        this.desk.run?.stop();
        this.open = kept.fresh();
        this.draw();
        this.message.focus();
    }

    remove() {
        this.desk.run?.stop();
        this.all = this.all.filter((one) => one !== this.open);
        kept.save(this.all);
        this.open = this.all[0] ?? kept.fresh();
        this.draw();
    }

    export() {
        const address = URL.createObjectURL(new Blob([kept.toMarkdown(this.open)], { type: "text/markdown" }));
        h("a", { href: address, download: "conversation.md" }).click();
        setTimeout(() => URL.revokeObjectURL(address), 1000);
    }

    // -- writing

    send() {
        const text = this.message.value || this.message.placeholder;
        if (this.desk.run?.running) return undefined;
        this.message.value = "";
        this.open.turns.push({ role: "user", text });
        if (this.open.turns.length === 1) this.desk.store.set({ prompt: text, system: this.open.system, run: true });
        return this.answer();
    }

    /** Write the assistant's turn that follows the last one. */
    async answer() {
        const { state } = this.desk.store, turn = { role: "assistant", text: "" }, conversation = this.open;
        turn.run = newRun(state, this.desk.constraint());
        conversation.turns.push(turn);
        this.desk.store.set({ at: -1, path: "" });
        this.desk.start(turn.run, true);
        this.draw();
        await turn.run.write({ messages: messagesOf(conversation, conversation.turns.length - 1), maxTokens: state.max_tokens });
        this.keep(turn, conversation);
    }

    /** The turn is written; by now another conversation may be open. */
    keep(turn, conversation) {
        if (!conversation.turns.includes(turn)) return;
        turn.text = turn.run.text;
        if (turn.run.error && !turn.text) conversation.turns.splice(conversation.turns.indexOf(turn), 1);
        this.save();
        if (conversation === this.open) this.draw();
    }

    regenerate(turn) {
        this.desk.run?.stop();
        this.open.turns.length = this.open.turns.indexOf(turn);
        this.desk.store.set({ seed: this.desk.store.state.seed + 1 });
        return this.answer();
    }

    resample() {
        const last = this.open.turns.at(-1);
        return last?.role === "assistant" && this.regenerate(last);
    }

    /** Go on from a branch of the turn that it came from. */
    async follow(run) {
        const conversation = this.open, turn = conversation.turns.find((one) => one.run && one.run === run.parent.run);
        if (!turn) return;
        turn.run = run;
        this.open.turns.length = this.open.turns.indexOf(turn) + 1;
        this.draw();
        await run.write({ maxTokens: this.desk.store.state.max_tokens });
        this.keep(turn, conversation);
    }

    change(turn, item) {
        const field = h("textarea", { rows: 3, "aria-label": "Edit this message", value: turn.text });
        const done = () => {
            this.desk.run?.stop();
            turn.text = field.value;
            delete turn.run;
            if (turn.role === "user") {
                this.open.turns.length = this.open.turns.indexOf(turn) + 1;
                this.answer();
            } else this.save(), this.draw();
        };
        const back = () => this.draw();
        field.addEventListener("keydown", (event) => event.key === "Escape" && (event.stopPropagation(), back()));
        item.replaceChildren(field, h("div", { class: "actions" }, h("button", { class: "primary", onclick: done }, turn.role === "user" ? "Send again" : "Keep"), h("button", { onclick: back }, "Cancel")));
        field.focus();
    }

    // -- drawing

    draw() {
        const others = this.all.includes(this.open) ? this.all : [this.open, ...this.all];
        this.choice.replaceChildren(...others.map((one) => h("option", { value: one.id }, kept.titleOf(one))));
        this.choice.value = this.open.id;
        this.system.value = this.open.system;
        this.rivers = new Map();
        this.list.replaceChildren(...this.open.turns.map((turn) => this.turn(turn)));
        this.refresh();
    }

    turn(turn) {
        const item = h("li", { class: turn.role });
        const river = turn.run && document.createElement("nl-river");
        if (river) this.rivers.set(river, turn);
        const actions = [
            h("button", { class: "quiet", onclick: () => this.change(turn, item) }, "Edit"),
            turn.role === "assistant" && h("button", { class: "quiet", onclick: () => this.regenerate(turn) }, "Regenerate"),
            h("button", { class: "quiet", onclick: () => this.desk.copy(turn.run?.text ?? turn.text) }, "Copy"),
        ];
        item.append(h("small", { class: "role" }, turn.role === "user" ? "You" : "Model"), river ?? h("p", { class: "text" }, turn.text), h("div", { class: "actions" }, actions.filter(Boolean)));
        return item;
    }

    refresh() {
        if (this.hidden || !this.rivers) return;
        const { run, store } = this.desk;
        for (const [river, turn] of this.rivers) river.show(turn.run, turn.run === run ? store.state.at : -1);
        this.go.textContent = run?.running ? "Stop" : "Send";
        this.note.className = run?.error ? "error" : "hint";
        this.note.textContent = run?.error ? run.error.message : run && !run.running && run.finish ? ended(run) : "";
    }

    focusToken() {
        for (const [river, turn] of this.rivers) if (turn.run === this.desk.run) river.focusToken();
    }
}

function messagesOf({ system, turns }, until) {
    const said = turns.slice(0, until).map((turn) => ({ role: turn.role, content: turn.run?.text ?? turn.text }));
    return system ? [{ role: "system", content: system }, ...said] : said;
}

customElements.define("nl-chat", Chat);
