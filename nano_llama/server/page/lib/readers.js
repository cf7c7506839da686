// A dozen readers: requests that the page sends so that one sees the engine work for many at once; and the buttons of the
// views that watch it. Tests: tests/page/test_engine.py.

import { requestId, stream } from "./api.js";
import { h } from "./dom.js";
import { engine } from "./engine.js";

const KEEPER = "The keeper of the lighthouse climbed the stairs every evening, lit the lamp, and wrote one line about the sea into a book that nobody else had ever read. ";
// Four requests of three prompts (a browser opens six connections at most); half of the readers begin alike.
const GROUPS = [
    [`${KEEPER}Tonight`, "The rain", `${KEEPER}In spring`],
    [`${KEEPER}When the storm came`, "Once upon a time there was a small dog who", "My grandmother used to say that the best bread"],
    [`${KEEPER}His daughter`, "Far away, on the other side of the mountain,", `${KEEPER}Then one day`],
    ["It was late when", `${KEEPER}The last line`, "To fix the old clock, first open the case, then"],
];
const TOKENS = [24, 36, 48, 64], PAUSE = 40; // ms between two requests

async function send(signal) {
    await Promise.all(GROUPS.map(async (prompt, at) => {
        await new Promise((done) => setTimeout(done, at * PAUSE));
        const id = requestId(), ids = prompt.map(() => []);
        engine.wrote(id, (choice) => ids[choice], "one of the dozen");
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
export function engineBar() {
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
