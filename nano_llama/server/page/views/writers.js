// <nl-complete>: a prompt, and how the model goes on. <nl-chat>: a conversation, in which any turn can be edited or written
// anew; several are kept in this browser alone (localStorage). Tests: tests/page/test_page.py, tests/page/test_chat.py.

import { fill, h } from "../lib/dom.js";
import { newRun } from "../lib/run.js";
import "./river.js";

const KEY = "nano-llama conversations", MOST = 50;

/** What both have: a button that begins and stops, the sliders, and a note on how the text ended. */
class Writer extends HTMLElement {
    /** desk: what all parts of the page share (main.js). */
    begin(desk, label, write) {
        Object.assign(this, { desk, label });
        this.go = h("button", { class: "primary", onclick: () => (desk.run?.running ? desk.run.stop() : write()) }, label);
        this.note = h("p", { class: "hint", role: "status" });
        this.sliders = h("nl-settings");
        this.sliders.show(desk.store, desk.SETTINGS);
        desk.addEventListener("run", () => this.refresh());
    }

    report() {
        const { run } = this.desk;
        this.go.textContent = run?.running ? "Stop" : this.label;
        this.note.className = run?.error ? "error" : "hint";
        this.note.textContent = run?.error ? run.error.message : run && !run.running && run.finish ? ended(run) : "";
    }
}

class Complete extends Writer {
    show(desk) {
        const { store } = desk, remember = () => store.set({ prompt: this.prompt.value, path: "", run: false });
        this.begin(desk, "Continue", () => this.write());
        this.prompt = h("textarea", { rows: 4, id: "prompt", spellcheck: "false", value: store.state.prompt, oninput: remember, placeholder: "Once upon a time" });
        this.prompt.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.write();
        });
        this.copy = h("button", { hidden: true, onclick: () => desk.copy(this.prompt.value + desk.run.text) }, "Copy");
        this.again = h("button", { hidden: true, title: "R", onclick: () => this.resample() }, "Another seed");
        this.river = h("nl-river");
        fill(this,
            h("label", { for: "prompt" }, "Text that the model continues"), this.prompt,
            h("div", { class: "actions" }, this.go, this.again, this.copy, h("span", { class: "hint" }, "Ctrl + Enter")),
            h("details", { class: "sampling" }, h("summary", {}, "Sampling"), this.sliders),
            this.river, this.note);
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
        this.report();
        if (!run) return fill(this.river), void (this.river.run = null);
        this.copy.hidden = this.again.hidden = run.running || !run.tokens.length;
        this.river.show(run, this.desk.store.state.at);
    }

    focusToken() {
        this.river.focusToken();
    }
}

class Chat extends Writer {
    show(desk) {
        this.begin(desk, "Send", () => this.send());
        this.all = load();
        this.open = this.all[0] ?? fresh();
        if (desk.store.state.prompt || desk.store.state.system) this.open = this.linked = { ...fresh(), system: desk.store.state.system };
        this.choice = h("select", { "aria-label": "Conversations", onchange: () => this.pick(this.choice.value) });
        this.system = h("textarea", { rows: 2, id: "system", oninput: () => this.edit({ system: this.system.value }) });
        this.list = h("ol", { class: "turns" });
        this.message = h("textarea", { rows: 3, id: "message", value: desk.store.state.prompt, placeholder: "Why is the sky blue?" });
        this.message.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            this.send();
        });
        fill(this,
            h("div", { class: "actions" }, this.choice, h("button", { onclick: () => this.start() }, "New"),
                h("button", { onclick: () => this.remove() }, "Delete"), h("button", { onclick: () => this.export() }, "Export")),
            h("details", { class: "sampling" }, h("summary", {}, "System prompt and sampling"), h("label", { for: "system" }, "System prompt"), this.system, this.sliders),
            this.list, this.note,
            h("label", { for: "message" }, "Your message"), this.message,
            h("div", { class: "actions" }, this.go, h("span", { class: "hint" }, "Enter sends, Shift + Enter begins a line")));
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
        if (!save(this.all)) this.note.textContent = "This browser keeps no more conversations: delete some, or export this one.";
    }

    pick(id) {
        this.desk.run?.stop();
        this.open = this.all.find((one) => one.id === id) ?? this.open;
        this.draw();
    }

    start() {
        this.desk.run?.stop();
        this.open = fresh();
        this.draw();
        this.message.focus();
    }

    remove() {
        this.desk.run?.stop();
        this.all = this.all.filter((one) => one !== this.open);
        save(this.all);
        this.open = this.all[0] ?? fresh();
        this.draw();
    }

    export() {
        const address = URL.createObjectURL(new Blob([toMarkdown(this.open)], { type: "text/markdown" }));
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
        this.choice.replaceChildren(...others.map((one) => h("option", { value: one.id }, titleOf(one))));
        this.choice.value = this.open.id;
        this.system.value = this.open.system;
        this.rivers = new Map();
        this.list.replaceChildren(...this.open.turns.map((turn) => this.turn(turn)));
        this.refresh();
    }

    turn(turn) {
        const item = h("li", { class: turn.role });
        const river = turn.run && h("nl-river");
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
        this.report();
    }

    focusToken() {
        for (const [river, turn] of this.rivers) if (turn.run === this.desk.run) river.focusToken();
    }
}

function messagesOf({ system, turns }, until) {
    const said = turns.slice(0, until).map((turn) => ({ role: turn.role, content: turn.run?.text ?? turn.text }));
    return system ? [{ role: "system", content: system }, ...said] : said;
}

/** Why a text ends, and how to read its colours. */
function ended(run) {
    const reasons = { length: "as many as were asked for", stop: "the model ended the text", "stopped by you": "stopped by you" };
    const given = run.given ? `, after the ${run.given} that the branch began with` : "";
    return `${run.tokens.length - run.given} tokens: ${reasons[run.finish] ?? run.finish}${given}. The darker one is, the more it surprised the model; choose one to see why it stands there.`;
}

/** [{id, title, system, turns: [{role, text}]}], the latest first; what is damaged is left out. */
function load() {
    try {
        return JSON.parse(localStorage.getItem(KEY) ?? "[]").filter(isConversation);
    } catch {
        return [];
    }
}

/** Returns whether there was room. */
function save(conversations) {
    try {
        localStorage.setItem(KEY, JSON.stringify(conversations.slice(0, MOST).map(({ id, system, turns }) => ({ id, system, turns: turns.map(({ role, text }) => ({ role, text })) }))));
        return true;
    } catch {
        return false;
    }
}

/** A conversation without turns. */
function fresh() {
    return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), system: "", turns: [] };
}

function titleOf({ turns }) {
    const first = turns[0]?.text.trim().replace(/\s+/g, " ") ?? "";
    return first ? first.slice(0, 40) : "New conversation";
}

/** A conversation as Markdown. */
function toMarkdown({ system, turns }) {
    const parts = [...(system ? [{ role: "system", text: system }] : []), ...turns];
    return parts.map(({ role, text }) => `**${role}**\n\n${text}\n`).join("\n");
}

function isConversation(one) {
    const isTurn = (turn) => ["user", "assistant"].includes(turn?.role) && typeof turn.text === "string";
    return typeof one?.id === "string" && typeof one.system === "string" && Array.isArray(one.turns) && one.turns.every(isTurn);
}

customElements.define("nl-complete", Complete);
customElements.define("nl-chat", Chat);
