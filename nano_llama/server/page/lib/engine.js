// What the engine does, step by step, for the views that show it: one stream of POST /inspect/events for all of them, which
// is open while one of them is looked at. Of other clients it has counts only. And a dozen readers: requests that the page
// sends so that one sees the engine work for many at once. Tests: tests/page/test_engine.py.

import { ask, OWN, requestId, stream } from "./api.js";
import { h } from "./dom.js";
import { TEXT, written, wrote } from "./run.js";

const STEPS = 400, REQUESTS = 200; // that are kept
const LINGER = 5000; // ms for which the stream outlives the last view, since one goes from one view to the next

/**
 * steps: the events "step", each with did: Map of the page's own sequences to "prompt", "decode", "waiting" or "preempted".
 * A sequence: {number, label (1, 2, ... on this page), lane, own, choice, prompt, blocks, computed, found (in kept blocks),
 * ended}. All of it is begun anew with the stream.
 */
class Engine {
    constructor() {
        this.views = new Set();
        this.error = this.stopper = this.machine = null;
        this.begin(null);
    }

    begin(settings) {
        this.settings = settings;
        Object.assign(this, { steps: [], sequences: new Map(), kept: new Map(), waiting: [], held: false, done: false, labels: 0, users: new Map() });
    }

    // -- who looks

    look(view, info) {
        this.info = info;
        clearTimeout(this.closing);
        this.views.add(view);
        if (!this.stopper && !this.done && !this.error) this.open();
    }

    leave(view) {
        if (this.views.delete(view) && !this.views.size) this.closing = setTimeout(() => this.stopper?.abort(), LINGER);
    }

    async open() {
        const stopper = (this.stopper = new AbortController());
        let ready;
        this.ready = new Promise((done) => (ready = done)); // the first event has come, or none will
        this.error = null;
        try {
            // Only a server that shows its own steps has it; a recorded trace says nothing about memory.
            if (this.info.endpoints.includes("/inspect/roofline")) this.machine ??= await ask("/inspect/roofline");
            for await (const event of stream("/inspect/events", { own: OWN, time_phases: Boolean(this.machine?.phases) }, stopper.signal)) {
                if (event.event === "began") this.begin(event);
                ready();
                this.waiting.push(event);
                this.hold(this.held);
                if (event.event === "over") break;
            }
        } catch (error) {
            if (error.name !== "AbortError") this.error = error;
        }
        ready();
        this.stopper = null;
        this.changed();
    }

    /** Stand still, or show what came meanwhile and go on. */
    hold(held) {
        this.held = held;
        if (!held) this.catchUp();
        this.changed();
    }

    catchUp() {
        for (const event of this.waiting.splice(0)) {
            if (["arrived", "step", "ended"].includes(event.event)) this[event.event](event);
            else this.done = event.event === "over";
        }
        this.changed();
    }

    changed() {
        this.drawing ??= requestAnimationFrame(() => {
            this.drawing = null;
            for (const view of this.views) view.refresh();
        });
    }

    // -- events

    arrived({ sequence, own, prompt_tokens: prompt, max_length: most }) {
        this.sequence(sequence, own);
        Object.assign(this.sequences.get(sequence), { prompt, most });
    }

    step(event) {
        const did = new Map();
        for (const row of event.rows) {
            const one = this.sequence(row.sequence, row.own), decodes = one.prompt === null ? row.count === 1 : row.position >= one.prompt;
            Object.assign(one, { computed: row.position + row.count, found: one.found + (event.prefix_hits[row.sequence] ?? 0) });
            this.take(one, row.blocks);
            did.set(one, decodes ? "decode" : "prompt");
        }
        for (const number of event.preempted) {
            this.release(this.sequence(number));
            this.sequence(number).found = 0;
        }
        for (const one of this.sequences.values()) {
            if (one.ended) this.release(one);
            else if (!did.has(one)) did.set(one, event.preempted.includes(one.number) ? "preempted" : "waiting");
        }
        // The engine may have given a kept block away, the longest unused first.
        for (const block of [...this.kept.keys()].slice(0, Math.max(0, this.kept.size - event.blocks.kept))) this.kept.delete(block);
        this.steps.push({ ...event, did });
        if (this.steps.length > STEPS) this.steps.shift();
    }

    /** It holds these blocks now. users: block -> all that ever had what is in it. */
    take(one, blocks) {
        blocks.forEach((block, index) => {
            if (one.blocks[index] === block) return;
            const found = index * this.settings.block_size < one.found || [...this.sequences.values()].some((other) => other.blocks.includes(block));
            this.users.set(block, new Set(found ? this.users.get(block) : []).add(one));
            this.kept.delete(block);
        });
        one.blocks = blocks;
    }

    ended({ sequence, own, tokens, reason }) {
        const one = this.sequence(sequence, own);
        one.ended = { tokens, reason };
        this.release(one);
    }

    sequence(number, own) {
        if (!this.sequences.has(number)) {
            const all = [...this.sequences.values()], taken = new Set(all.filter((one) => !one.ended).map((one) => one.lane));
            let lane = 0;
            while (taken.has(lane)) lane++;
            const choice = all.filter((one) => one.own === own).length;
            this.sequences.set(number, { number, own, choice, lane, label: ++this.labels, prompt: null, blocks: [], computed: 0, found: 0, ended: null });
            if (all.length > REQUESTS) this.sequences.delete(all.find((one) => one.ended)?.number);
        }
        return this.sequences.get(number);
    }

    /** Its blocks are free; full ones are kept for their beginning. */
    release(one) {
        if (!one.blocks.length) return;
        const { block_size: size } = this.settings, held = this.blocks();
        for (let index = Math.floor(one.computed / size) - 1; index >= 0; index--) {
            const block = one.blocks[index];
            if (held.get(block).holders.every((other) => other === one)) this.kept.set(block, { one, index });
        }
        one.blocks = [];
    }

    // -- what is known

    /** block -> {holders, index: its place in their tables, tokens in it, found: by one of them}, of those that the page's own requests hold. */
    blocks() {
        const found = new Map(), size = this.settings.block_size;
        for (const one of this.sequences.values()) one.blocks.forEach((block, index) => {
            const entry = found.get(block) ?? { holders: [], index, tokens: 0, found: false };
            entry.holders.push(one);
            entry.tokens = Math.max(entry.tokens, Math.min(size, one.computed - size * index));
            entry.found ||= size * index < one.found;
            found.set(block, entry);
        });
        return found;
    }

    /** The tokens of a sequence; null: this page does not know them. */
    ids(one) {
        return written.get(one.own)?.ids(one.choice) ?? null;
    }

    /** Whether a sequence, or a row, is of a text that the page shows. */
    isText(one) {
        return this.what(one) === TEXT;
    }

    what(one) {
        return this.settings.recorded ? "a recorded text" : written.get(one.own)?.what ?? "a question of this page";
    }
}

export const engine = new Engine();

/** An element that shows the engine while it is not hidden: build once, then draw whenever something happened. says(settings): its lead. */
export class EngineView extends HTMLElement {
    static observedAttributes = ["hidden"];

    attributeChangedCallback() {
        if (this.hidden) engine.leave(this);
    }

    show({ info, store }) {
        this.store = store;
        engine.look(this, info);
        if (!this.bar) {
            this.bar = engineBar();
            this.bar.refresh(); // its buttons have names before the first frame
            this.lead = h("p");
            this.build();
        }
        engine.changed();
        return engine.ready;
    }

    /** Put what is chosen into the link: the number of a block or a step outlives a recording alone; what outlives an engine
        is the place in the text that the page wrote. */
    choose(name, number, place) {
        this.store.set(engine.settings.recorded ? { [name]: number } : { place });
    }

    refresh() {
        this.bar.refresh();
        this.lead.textContent = this.says(engine.settings ?? engine.info.engine); // a recording has its own
        if (engine.settings) this.draw();
        this.twin.refresh();
    }
}

/** The texts of tokens. */
export async function textsOf(ids) {
    if (!ids?.length) return [];
    const { tokens } = await ask("/inspect/tokens", { tokens: ids });
    return tokens.map(({ text }) => text ?? "▯");
}

/** The colour of a sequence; its number always stands beside it. */
export function hue(one) {
    return Math.round((one.label * 137.5) % 360);
}

const KEEPER = "The keeper of the lighthouse climbed the stairs every evening, lit the lamp, and wrote one line about the sea into a book that nobody had ever read. ";
// Four requests of three prompts (a browser opens six connections at most); half of the readers begin alike.
const GROUPS = [
    [`${KEEPER}Tonight`, "The rain", `${KEEPER}In spring`],
    [`${KEEPER}When the storm came`, "Once upon a time", "My grandmother"],
    [`${KEEPER}His daughter`, "Far away", `${KEEPER}Then one day`],
    ["It was late when", `${KEEPER}The last line`, "To fix a clock"],
];
const TOKENS = [24, 36, 48, 64], PAUSE = 40; // ms between two requests

async function send(signal) {
    await Promise.all(GROUPS.map(async (prompt, at) => {
        await new Promise((done) => setTimeout(done, at * PAUSE));
        const id = requestId(), ids = prompt.map(() => []);
        wrote(id, (choice) => ids[choice], "one of the dozen");
        const body = { prompt, max_tokens: TOKENS[at], seed: 10 * at, temperature: 0.8, stream: true, return_token_ids: true };
        for await (const { choices } of stream("/v1/completions", body, signal, id))
            for (const { index, prompt_token_ids: read = [], token_ids: written = [] } of choices) ids[index].push(...read, ...written);
    }));
}

let running = null, problem = ""; // of all bars

function dozen() {
    if (running) return running.abort();
    running = new AbortController();
    problem = "";
    send(running.signal).catch((error) => error.name !== "AbortError" && (problem = error.message)).finally(() => {
        running.abort(); // what is left, if one of them failed
        running = null;
        engine.changed();
    });
    return engine.changed();
}

/** The buttons, and what there is to say about the stream. -> {element, refresh} */
function engineBar() {
    const button = (onclick) => h("button", { onclick });
    const sends = h("button", { class: "primary", onclick: dozen }), holds = button(() => engine.hold(!engine.held)), again = button(() => engine.open()), says = h("span", { class: "hint", role: "status" });
    const refresh = () => {
        const { settings, stopper, steps } = engine, recorded = Boolean(settings?.recorded);
        sends.hidden = recorded;
        sends.textContent = running ? "Stop them" : "Send a dozen readers";
        holds.textContent = engine.held ? "Go on" : "Hold";
        holds.hidden = !steps.length || (!stopper && !engine.held);
        again.hidden = Boolean(stopper);
        again.textContent = recorded ? "Play again" : "Watch again";
        const text = engine.error?.message ?? (problem || (engine.held ? `Held: ${engine.waiting.length} events wait.` : recorded ? (stopper ? "A recording is played; this server's own steps are not shown." : "The recording is over.") : ""));
        if (says.textContent !== text) says.textContent = text;
    };
    return { element: h("div", { class: "actions" }, sends, holds, again, says), refresh };
}
