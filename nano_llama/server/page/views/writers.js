// <nl-complete>: a prompt, and how the model goes on. <nl-chat>: a conversation, in which any turn can be edited or written
// anew; several are kept in this browser alone (localStorage). Tests: tests/page/test_page.py, tests/page/test_chat.py.

import { fill, h } from "../lib/dom.js";
import { newRun } from "../lib/run.js";
import "./river.js";

const KEY = "nano-llama conversations";

/** What both have: a button that begins and stops, the sliders, and a note on how the text ended. */
class Writer extends HTMLElement {
    usual = {};

    /** desk: what all parts of the page share (main.js). */
    begin(desk, label, write) {
        Object.assign(this, { desk, label });
        this.go = h("button", { class: "primary", onclick: () => (desk.busy ? desk.stop() : write()) }, label);
        this.note = h("p", { class: "hint", role: "status" });
        this.sliders = h("nl-settings");
        this.sliders.show(desk.store, desk.SETTINGS, this.usual);
        for (const event of ["run", "written"]) desk.addEventListener(event, () => this.refresh());
    }

    /** Tokens at most; undefined: to the answer's end. */
    get most() {
        return this.desk.store.state.max_tokens || this.usual.max_tokens;
    }

    report() {
        const { run } = this.desk;
        this.go.textContent = this.desk.busy ? "Stop" : this.label;
        this.note.className = run?.error ? "error" : "hint";
        this.note.textContent = run?.error ? run.error.message : run && !run.running && run.finish ? ended(run) : "";
    }
}

class Complete extends Writer {
    usual = { max_tokens: 48 }; // a text that goes on has no end of its own

    show(desk) {
        const { store } = desk, remember = () => store.set({ prompt: this.prompt.value, path: "", run: false });
        this.begin(desk, "Continue", () => this.write());
        this.prompt = h("textarea", { id: "prompt", spellcheck: "false", value: store.state.prompt, oninput: remember, placeholder: "Once upon a time" });
        this.prompt.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.write();
        });
        this.copy = h("button", { hidden: true, onclick: () => desk.copy(this.prompt.value + desk.run.text) }, "Copy");
        this.again = h("button", { hidden: true, title: "R", onclick: () => this.resample() }, "Another seed");
        this.river = h("nl-river");
        fill(this,
            h("label", { for: "prompt" }, "Text that the model continues"), this.prompt,
            h("div", { class: "actions" }, this.go, this.again, this.copy, h("span", { class: "hint keyed" }, "Ctrl + Enter")),
            h("details", { class: "sampling" }, h("summary", {}, "Sampling"), this.sliders),
            this.river, this.note);
    }

    get source() {
        return { prompt: this.prompt.value };
    }

    async write() {
        const { desk } = this, { state } = desk.store;
        if (!this.prompt.value) this.prompt.value = this.prompt.placeholder;
        desk.link({ prompt: this.prompt.value });
        const run = newRun(state, desk.constraint());
        desk.start(run, true);
        await run.write({ prompt: this.prompt.value, maxTokens: this.most });
    }

    linkOf() {}

    resample() {
        this.desk.store.set({ seed: Math.floor(Math.random() * 1e6) });
        return this.write();
    }

    /** Go on from a branch. */
    async follow(run) {
        await run.write({ maxTokens: this.most });
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
        const { state } = desk.store;
        this.all = load();
        this.open = state.prompt || state.system ? this.linked(state) : this.all[0] ?? fresh();
        this.choice = h("select", { id: "conversations", "aria-label": "Conversations", onchange: () => this.turnTo(this.all.find((one) => one.id === this.choice.value)) });
        this.system = h("textarea", { id: "system", oninput: () => this.edit({ system: this.system.value }) });
        this.list = h("ol", { class: "turns" });
        this.message = h("textarea", { id: "message", value: state.prompt, placeholder: "Why is the sky blue?" });
        this.message.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            this.send();
        });
        this.unkept = h("p", { class: "error", role: "alert", hidden: true }, "This browser has no room for this conversation: export it, or delete others.");
        fill(this,
            h("div", { class: "actions" }, this.choice, h("button", { onclick: () => this.begun() }, "New"),
                h("button", { onclick: () => this.remove() }, "Delete"), h("button", { onclick: () => this.export() }, "Export")),
            h("details", { class: "sampling" }, h("summary", {}, "System prompt and sampling"), h("label", { for: "system" }, "System prompt"), this.system, this.sliders),
            this.list, this.note, this.unkept,
            h("label", { for: "message" }, "Your message"), this.message,
            h("div", { class: "actions" }, this.go, h("span", { class: "hint keyed" }, "Enter sends, Shift + Enter begins a line")));
        addEventListener("storage", ({ key }) => key === KEY && (this.read(), this.name()));
        this.draw();
    }

    get source() {
        const written = this.message.value ? [{ role: "user", content: this.message.value }] : [];
        return { messages: [...messagesOf(this.open, this.open.turns.length), ...written] };
    }

    // -- the conversations

    /** What a link holds: one of those that are kept, to be written anew from the link's message on; or a new one. */
    linked({ said, prompt, system }) {
        const turns = parsed(said).filter(isTurn), asked = [...turns, { role: "user", text: prompt }];
        const known = this.all.find((one) => one.system === system && one.turns.length - asked.length < 2 && asked.every((turn, at) => turn.role === one.turns[at]?.role && turn.text === one.turns[at].text));
        return { ...fresh(), id: known?.id ?? fresh().id, system, turns };
    }

    edit(changes) {
        Object.assign(this.open, changes);
        this.keep(this.open);
    }

    /** Read what is kept by now: another window may have written, too. What is shown here stays as it is. */
    read() {
        if (this.unkept.hidden) this.all = load().map((one) => this.all.find((known) => known.id === one.id && JSON.stringify(plain(known)) === JSON.stringify(one)) ?? one);
    }

    /** Keep one, as the latest. What a link wrote is kept once somebody goes on with it. */
    keep(one) {
        if (this.desk.replaying) return;
        this.read();
        this.put([...(one.turns.length ? [one] : []), ...this.all.filter((other) => other.id !== one.id)]);
    }

    put(all) {
        this.all = all;
        this.unkept.hidden = save(all);
        this.name();
    }

    turnTo(one) {
        this.desk.clear();
        this.open = one;
        this.draw();
    }

    begun() {
        this.turnTo(fresh());
        this.message.focus();
    }

    remove() {
        if (!this.open.turns.length || !confirm(`Delete “${titleOf(this.open)}”?`)) return;
        const { id, turns } = this.open;
        turns.length = 0;
        this.read();
        this.put(this.all.filter((one) => one.id !== id));
        this.turnTo(this.all[0] ?? fresh());
    }

    export() {
        const address = URL.createObjectURL(new Blob([toMarkdown(this.open)], { type: "text/markdown" }));
        h("a", { href: address, download: "conversation.md" }).click();
        setTimeout(() => URL.revokeObjectURL(address), 1000);
    }

    // -- writing

    send() {
        const { turns } = this.open, text = this.message.value || (turns.length ? "" : this.message.placeholder);
        if (this.desk.busy || !text.trim()) return undefined;
        this.message.value = "";
        turns.push({ role: "user", text });
        return this.answer();
    }

    /** Send what the field suggests, if it is empty. */
    write() {
        this.message.value ||= this.message.placeholder;
        return this.send();
    }

    /** Write the assistant's turn that follows the last one. */
    async answer() {
        const { desk, open } = this, { state } = desk.store, turn = { role: "assistant", text: "" };
        this.keep(open);
        open.turns.push(turn);
        desk.link(this.linkOf(null, turn));
        turn.run = newRun(state, desk.constraint());
        desk.start(turn.run, true);
        this.draw();
        scrollTo(0, document.documentElement.scrollHeight);
        await turn.run.write({ messages: messagesOf(open, open.turns.length - 1), maxTokens: this.most });
        this.written(turn, open);
    }

    /** By now another conversation may be open. */
    written(turn, conversation) {
        if (!turn.run || !conversation.turns.includes(turn)) return;
        turn.text = turn.run.text;
        if (!turn.run.tokens.length) conversation.turns.splice(conversation.turns.indexOf(turn), 1);
        this.keep(conversation);
        if (conversation === this.open && !conversation.turns.includes(turn)) this.draw();
    }

    /** What a link to a text, or to a turn, says of the conversation before it. */
    linkOf(run, turn = this.open.turns.find((one) => one.run === run)) {
        const before = this.open.turns.slice(0, this.open.turns.indexOf(turn)).map(({ role, text }) => ({ role, text })), asked = before.pop();
        return { said: before.length ? JSON.stringify(before) : "", prompt: asked?.text ?? "", system: this.open.system };
    }

    regenerate(turn) {
        this.desk.stop();
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
        const room = this.desk.info.context - run.idsBefore(run.tokens.length).length; // it goes on as a completion, which must be told
        await run.write({ maxTokens: this.most ?? room });
        this.written(turn, conversation);
    }

    change(turn, item) {
        const asks = turn.role === "user", field = h("textarea", { "aria-label": "Edit this message", value: turn.text });
        const done = () => {
            this.desk.clear();
            turn.text = field.value;
            delete turn.run;
            if (asks) this.open.turns.length = this.open.turns.indexOf(turn) + 1, this.answer();
            else this.keep(this.open), this.draw();
        };
        field.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done();
            if (event.key === "Escape") event.stopPropagation(), this.draw();
        });
        fill(item, field, h("div", { class: "actions" }, h("button", { class: "primary", onclick: done }, asks ? "Send again" : "Keep"), h("button", { onclick: () => this.draw() }, "Cancel"), h("span", { class: "hint keyed" }, "Ctrl + Enter")));
        field.focus();
    }

    // -- drawing

    /** The names of the conversations. */
    name() {
        const others = this.all.filter((one) => one.id !== this.open.id), all = others.length < this.all.length ? this.all : [this.open, ...this.all];
        fill(this.choice, all.map((one) => h("option", { value: one.id }, titleOf(one))));
        this.choice.value = this.open.id;
    }

    draw() {
        const { activeElement: focused } = document, place = [...this.list.children].indexOf(focused.closest(".turns li"));
        this.name();
        this.system.value = this.open.system;
        this.rivers = new Map();
        fill(this.list, this.open.turns.map((turn) => this.turn(turn)));
        this.refresh();
        if (place < 0) return;
        const buttons = [...(this.list.children[place]?.querySelectorAll("button") ?? [])];
        (buttons.find((one) => one.textContent === focused.textContent) ?? buttons[0] ?? this.message).focus();
    }

    turn(turn) {
        const item = h("li", { class: turn.role }), asks = turn.role === "user", button = (name, onclick) => h("button", { class: "quiet", onclick }, name);
        const river = turn.run && h("nl-river");
        if (river) this.rivers.set(river, turn);
        item.append(h("small", { class: "role" }, asks ? "You" : "Model"), river ?? h("p", { class: "text" }, turn.text), h("div", { class: "actions" },
            button("Edit", () => this.change(turn, item)),
            !asks && button("Regenerate", () => this.regenerate(turn)),
            asks && turn === this.open.turns.at(-1) && button("Answer", () => this.answer()),
            button("Copy", () => this.desk.copy(turn.run?.text ?? turn.text))));
        return item;
    }

    refresh() {
        if (this.hidden || !this.rivers) return;
        const { run, store } = this.desk, page = document.documentElement, follows = this.desk.busy && scrollY + innerHeight > page.scrollHeight - 40;
        for (const [river, turn] of this.rivers) river.show(turn.run, turn.run === run ? store.state.at : -1);
        this.report();
        if (follows) scrollTo(0, page.scrollHeight);
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
    const reasons = { length: "as many as “tokens at most” or the context allows", stop: "the model ended the text", "stopped by you": "stopped by you" };
    const given = run.given ? `, after the ${run.given} that the branch began with` : "";
    return `${run.tokens.length - run.given} tokens: ${reasons[run.finish] ?? run.finish}${given}. The stronger its colour, the more a token surprised the model; choose one to see why it stands there.`;
}

/** [{id, system, turns: [{role, text}]}], the latest first; what is damaged is left out. */
function load() {
    return parsed(localStorage.getItem(KEY)).filter(isConversation);
}

/** Returns whether there was room. */
function save(conversations) {
    try {
        localStorage.setItem(KEY, JSON.stringify(conversations.map(plain)));
        return true;
    } catch {
        return false;
    }
}

/** What is kept of a conversation. */
function plain({ id, system, turns }) {
    return { id, system, turns: turns.map(({ role, text }) => ({ role, text })) };
}

/** The list that a text holds; an empty one, if it holds none. */
function parsed(text) {
    try {
        const made = JSON.parse(text);
        return Array.isArray(made) ? made : [];
    } catch {
        return [];
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

function isTurn(turn) {
    return ["user", "assistant"].includes(turn?.role) && typeof turn.text === "string";
}

function isConversation(one) {
    return typeof one?.id === "string" && typeof one.system === "string" && Array.isArray(one.turns) && one.turns.every(isTurn);
}

customElements.define("nl-complete", Complete);
customElements.define("nl-chat", Chat);
