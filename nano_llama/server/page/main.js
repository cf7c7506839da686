// The page: who writes (completion, chat), what is looked at, keys, theme, and the state in the URL's hash.
// Tests: tests/page/test_page.py.

import { ask, hasKey, setKey } from "./lib/api.js";
import { alarm, count, fill, forPage, h, rove } from "./lib/dom.js";
import { inspect } from "./lib/run.js";
import { constraintOf, samplingOf, Store } from "./lib/state.js";
import { startTour } from "./lib/tour.js";
import "./views/writers.js";

// [title, its module, what it asks of the server: a view is shown where the server has it]
const VIEWS = {
    alternatives: ["Alternatives", "river", "/inspect/next"], why: ["Why this token", "why", "/inspect/next"], lens: ["Logit lens", "depth", "/inspect/replay"],
    attention: ["Attention", "attention", "/inspect/replay"], attribution: ["Who wrote it", "depth", "/inspect/replay"], reads: ["What it reads", "reads", "/inspect/tokens"],
    branches: ["Branches", "river"], grammar: ["Under a rule", "grammar", "/inspect/next"], volumes: ["Three volumes", "volumes", "/inspect/volumes"],
    blocks: ["Blocks", "engine", "/inspect/events"], timeline: ["Timeline", "engine", "/inspect/events"], roofline: ["Roofline", "engine", "/inspect/roofline"],
};
const OF_A_TOKEN = ["/inspect/next", "/inspect/replay", "/inspect/volumes"];
const WRITERS = { complete: ["Completion"], chat: ["Chat"] };
const DWELL = 50; // ms at a token after which the server is asked what could stand there: it is mostly opened next
const THEMES = ["auto", "light", "dark"];
const byId = (id) => document.getElementById(id);

/** What all parts of the page share. Its event "run": the text that is shown, or its tokens, changed. */
class Desk extends EventTarget {
    SETTINGS = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "max_tokens", "seed"];

    constructor(info) {
        super();
        this.info = info;
        this.store = new Store(location.hash);
        this.runs = [];
        this.run = null;
        this.speaker = new Speaker(byId("spoken"));
    }

    constraint() {
        return constraintOf(this.store.state);
    }

    /** The link of a text that is written from the beginning. asked: its prompt and what stands before it. */
    link(asked) {
        const chosen = this.replaying ? {} : { written: samplingOf(this.store.state), place: -1, word: -1, against: -1 };
        this.store.set({ said: "", system: "", path: "", at: -1, text: -1, run: true, ...chosen, ...asked });
    }

    /** Show a text that is about to be written. first: it is no branch. */
    start(run, first) {
        this.stop();
        if (first) this.runs = [];
        this.runs.push(run);
        this.run = this.writing = run;
        run.addEventListener("change", ({ detail }) => {
            this.speaker.push(detail);
            if (!run.running) this.speaker.finish(run.error ? run.error.message : "The text has ended.");
            if (run === this.run) this.changed();
            else this.dispatchEvent(new Event("written"));
        });
        this.changed();
    }

    /** Show a text that was written before, at one of its tokens. asked: its link, if it is none of those that are shown. */
    open(run, at, view, asked) {
        if (!this.runs.includes(run)) {
            this.runs = [];
            for (let one = run; one; one = one.parent?.run) this.runs.unshift(one);
            const path = this.runs.slice(1).map(({ parent, tokens }) => `${parent.at}:${tokens[parent.at].id}`).join();
            this.link({ ...run.settings, written: run.settings, path, ...asked });
        }
        this.run = run;
        this.store.set({ at, view, place: -1, word: -1, against: -1 });
    }

    /** Show no text. */
    clear() {
        this.stop();
        this.run = null;
        this.runs = [];
        this.link({ prompt: "", run: false });
        this.changed();
    }

    get busy() {
        return Boolean(this.writing?.running);
    }

    stop() {
        this.writing?.stop();
    }

    changed() {
        this.dispatchEvent(new Event("run"));
    }

    async copy(text) {
        const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
        this.speaker.say(copied ? "Copied." : "This browser does not let a page copy here.");
    }
}

/** Speaks whole sentences into a live region: token by token nobody could follow. */
class Speaker {
    constructor(region) {
        this.region = region;
        this.waiting = "";
    }

    push(text) {
        this.waiting += text;
        const end = Math.max(...[...".!?\n"].map((mark) => this.waiting.lastIndexOf(mark)));
        if (end >= 0) this.say(this.waiting.slice(0, end + 1)), (this.waiting = this.waiting.slice(end + 1));
    }

    finish(remark) {
        this.say(`${this.waiting} ${remark}`);
        this.waiting = "";
    }

    say(text) {
        if (text.trim()) this.region.textContent = text.trim();
    }
}

async function open() {
    let info;
    for (;;) {
        try {
            info = await ask("/inspect/model");
            break;
        } catch (error) {
            if (error.status === 401) return unlock(hasKey() ? error.message : "");
            if (error.code === "loading") continue; // the server has let this request wait for long
            byId("model").textContent = error.message;
            await new Promise((done) => setTimeout(done, 500));
        }
    }
    furnish(new Desk(info));
}

/** Ask for the key. refused: what the server says of the one that it was given. */
function unlock(refused) {
    byId("unlock").hidden = false;
    byId("refused").textContent = refused;
    byId("model").textContent = "";
    byId("unlock").addEventListener("submit", (event) => {
        event.preventDefault();
        setKey(byId("key").value);
        byId("unlock").hidden = true;
        open();
    }, { once: true });
    byId("key").focus();
}

function furnish(desk) {
    const { info, store } = desk, { shape } = info;
    byId("model").textContent = `${info.model} · ${short(info.parameters)} parameters · ${shape.layers} layers · ${count(info.vocab_size)} tokens · context ${count(info.context)}`;
    byId("desk").hidden = false;
    const modes = info.chat ? ["chat", "complete"] : ["complete"];
    if (!modes.includes(store.state.mode)) store.state.mode = modes[0];
    const shown = Object.keys(VIEWS).filter((name) => !VIEWS[name][2] || info.endpoints.includes(VIEWS[name][2]));
    if (!shown.includes(store.state.view)) store.state.view = shown[0];
    const writers = tabs(byId("writing"), byId("writers"), modes, WRITERS, store, "mode");
    const views = tabs(byId("looking"), byId("views"), shown, VIEWS, store, "view");
    for (const writer of writers.values()) writer.show(desk);
    const sheet = sheetOf(byId("looking"), byId("sheet"));
    const look = async () => {
        const { view } = store.state, panel = views.get(view);
        if (!panel.show && !(await fetchView(view, panel) && view === store.state.view)) return undefined;
        const writer = writers.get(store.state.mode), { at } = store.state, { run, runs } = desk;
        return panel.show({ run, runs, at, store, info, source: writer.source, blockSize: info.engine.block_size });
    };
    listen(desk, writers, views, look, sheet);
    replay(desk, writers.get(store.state.mode), look());
    (window.requestIdleCallback ?? setTimeout)(() => shown.forEach((view) => fetchView(view, views.get(view))));
    byId("tour").addEventListener("click", () => startTour(desk, writers.get(store.state.mode)));
}

/** A view is fetched when it is first looked at, or once the page is idle. -> whether it is there; if not, it says so. */
async function fetchView(view, panel) {
    try {
        await import(`./views/${VIEWS[view][1]}.js`);
        return true;
    } catch {
        fill(panel, alarm("This view could not be fetched. If the server is running, reload the page."));
        return false;
    }
}

/** On a narrow screen what is looked at lies over the text's lower part, and is put away. -> (open) => void */
function sheetOf(section, button) {
    const put = (open) => {
        section.classList.toggle("open", open);
        button.setAttribute("aria-expanded", String(open));
        button.textContent = open ? "Put away" : "Look inside";
    };
    button.addEventListener("click", () => put(!section.classList.contains("open")));
    section.querySelector("[role=tablist]").addEventListener("click", () => put(true));
    return put;
}

/** Tabs over elements, of which the state's one is shown. -> Map of name to element */
function tabs(section, place, names, labels, store, field) {
    const list = section.querySelector("[role=tablist]"), made = new Map();
    for (const name of names) {
        const panel = h(`nl-${name}`, { id: `panel-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}` });
        list.append(h("button", { role: "tab", id: `tab-${name}`, "aria-controls": panel.id, onclick: () => store.set({ [field]: name }) }, labels[name][0]));
        place.append(panel);
        made.set(name, panel);
    }
    const refresh = () => {
        for (const [name, panel] of made) {
            const chosen = name === store.state[field], tab = byId(`tab-${name}`);
            panel.hidden = !chosen;
            tab.setAttribute("aria-selected", String(chosen));
            tab.tabIndex = chosen ? 0 : -1;
            if (chosen) list.scrollLeft = tab.offsetLeft - list.offsetLeft - 40; // on a phone they are a strip
        }
    };
    rove(list, "[role=tab]", (tab) => tab.click());
    list.hidden = names.length < 2;
    store.addEventListener("change", refresh);
    refresh();
    return made;
}

function listen(desk, writers, views, look, sheet) {
    const { store } = desk, writer = () => writers.get(store.state.mode);
    let seen = { mode: store.state.mode }, timer = 0, near = 0;
    store.addEventListener("change", () => {
        const { view, at, mode } = store.state, key = JSON.stringify([view, at, mode]), before = seen;
        seen = { key, mode, view };
        if (mode !== before.mode) desk.clear();
        else if (key !== before.key) desk.changed();
        if (at >= 0 && key !== before.key || before.view && view !== before.view) sheet(true);
    });
    let looked = [];
    desk.addEventListener("run", () => {
        const { run } = desk, { at, view } = store.state, now = [run, at, view, run?.running];
        if (run?.running && view !== "branches" && now.every((one, i) => one === looked[i])) return; // more tokens: only branches grow by them
        looked = now;
        look();
    });
    byId("writers").addEventListener("input", () => {
        clearTimeout(timer);
        if (store.state.view === "reads") timer = setTimeout(look, 200);
    });
    addEventListener("token", ({ detail }) => {
        const view = OF_A_TOKEN.includes(VIEWS[store.state.view][2]) ? store.state.view : "alternatives";
        desk.open(detail.run, detail.at, view, writer().linkOf(detail.run));
        if (detail.focus) focusView(views.get(view));
        if (innerWidth < 900) (detail.option ?? byId("looking")).scrollIntoView({ block: "nearest" }); // above the sheet
    });
    addEventListener("near", ({ detail: { run, at } }) => {
        clearTimeout(near);
        near = setTimeout(() => inspect(run.inspection(at, run.settings)).catch(() => {}), DWELL);
    });
    addEventListener("branch", ({ detail: { run, at, token } }) => grow(desk, writer(), run, at, token));
    addEventListener("pick", ({ detail }) => {
        desk.run = detail.run;
        store.set({ at: -1, text: desk.runs.indexOf(detail.run) });
        desk.changed();
    });
    addEventListener("keydown", (event) => onKey(event, desk, writer(), views, sheet));
}

async function grow(desk, writer, run, at, token) {
    const { store, runs } = desk, from = runs.indexOf(run), branch = run.branch(at, token, { ...run.settings });
    branch.constraint = {}; // a rule is about a whole answer; the branch has left it
    desk.start(branch, false);
    const part = `${from === runs.length - 2 ? "" : `${from}.`}${at}:${token.id}`; // from which text, if not from the latest
    store.set({ at: -1, text: -1, path: [store.state.path, part].filter(Boolean).join() });
    if (document.activeElement === document.body) writer.focusToken();
    await writer.follow(branch);
}

/** What a link says: write its prompt, then take its branches. */
async function replay(desk, writer, looking) {
    const { run, prompt, path, at, text } = desk.store.state;
    if (!run || !prompt) return;
    desk.replaying = true;
    await looking; // a view that watches the engine
    await writer.write();
    for (const part of path.split(",").filter(Boolean)) {
        const [, from, place, id] = /^(?:(\d+)\.)?(\d+):(\d+)$/.exec(part)?.map(Number) ?? [], before = desk.runs[from] ?? desk.run;
        if (!before?.tokens[place]) break;
        const known = await ask("/inspect/tokens", { tokens: [id] }).catch(() => null);
        if (!known) break;
        await grow(desk, writer, before, place, { id, text: known.tokens[0].text });
    }
    desk.run = desk.runs[text] ?? desk.run;
    desk.store.set({ at: desk.run?.tokens[at] ? at : -1, text });
    desk.replaying = false;
    desk.changed();
}

/** The keyboard goes on in a view once it shows what was asked for; unless it has gone on elsewhere by then. */
async function focusView(view) {
    const from = document.activeElement, first = () => !view.ariaBusy && view.querySelector("button[tabindex='0'], input, select, button");
    for (let tries = 0; tries < 200 && !first(); tries++) await new Promise((done) => setTimeout(done, 50));
    if ([from, document.body].includes(document.activeElement)) (first() || from).focus();
}

function onKey(event, desk, writer, views, sheet) {
    if (event.key === "Escape" && !byId("help").open) {
        sheet(false);
        if (desk.busy) desk.stop();
        else writer.focusToken();
    }
    if (!forPage(event)) return;
    if (event.key === "?") byId("help").showModal();
    else if (event.key === "r" || event.key === "R") writer.resample();
    else if (/^[1-9]$/.test(event.key)) views.get("alternatives").querySelector(`[data-choice="${event.key}"]`)?.click();
}

function short(n) {
    return n >= 1e9 ? `${(n / 1e9).toFixed(1)} B` : n >= 1e6 ? `${Math.round(n / 1e6)} M` : count(n);
}

function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
    localStorage.setItem("nano-llama theme", theme);
}

setTheme(THEMES.includes(localStorage.getItem("nano-llama theme")) ? localStorage.getItem("nano-llama theme") : "auto");
byId("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
byId("keys").addEventListener("click", () => byId("help").showModal());
addEventListener("hashchange", () => location.reload());
open();
