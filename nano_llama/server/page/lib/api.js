// The server's API: JSON, and streams of server-sent events read by fetch (an EventSource can neither POST nor send a key).
// Tests: tests/page/test_page.py.

const KEY = "nano-llama key"; // for this tab only: sessionStorage
const AGAIN = 400; // ms
let asked = 0;

/** How this page's own requests begin (x-request-id): by it the server knows whose steps to show. Nobody guesses it. */
export const OWN = `page-${Array.from(crypto.getRandomValues(new Uint8Array(24)), (byte) => (byte % 36).toString(36)).join("")}`;

export function requestId() {
    return `${OWN}-${++asked}`;
}

class ApiError extends Error {
    constructor(message, status, code) {
        super(message);
        Object.assign(this, { status, code });
    }
}

export function setKey(key) {
    sessionStorage.setItem(KEY, key);
}

export function hasKey() {
    return sessionStorage.getItem(KEY) !== null;
}

async function request(path, body, signal, id = requestId()) {
    const headers = { "x-request-id": id }, key = sessionStorage.getItem(KEY);
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const method = body === undefined ? "GET" : "POST";
    let answer;
    try {
        // relative: a proxy may have put the server below a path
        answer = await fetch(path.slice(1), { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The server does not answer. Is it still running?", 0);
    }
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    throw new ApiError(error?.message ?? `The server answered ${answer.status}.`, answer.status, error?.code);
}

/** The JSON that a path answers; with a body it is a POST. */
export async function ask(path, body, signal) {
    return (await request(path, body, signal)).json();
}

/** The bytes that a path answers. */
export async function askBytes(path, body, signal) {
    return (await request(path, body, signal)).arrayBuffer();
}

/** As ask, of a server that does one such thing at a time: while it is busy, wait (and say so) and ask again. how: ask or askBytes. */
export async function askAgain(path, body, signal, waiting, how = ask) {
    for (;;) {
        try {
            return await how(path, body, signal);
        } catch (error) {
            if (error.status !== 429) throw error;
            waiting();
            await new Promise((done) => setTimeout(done, AGAIN));
            signal.throwIfAborted();
        }
    }
}

/** The chunks of a stream, as they come. */
export async function* stream(path, body, signal, id) {
    const answer = await request(path, body, signal, id);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    try {
        for (;;) {
            const { done, value } = await reader.read().catch((error) => (error.name === "AbortError" ? Promise.reject(error) : { done: true }));
            if (done) throw new ApiError("The stream was cut off: is the server still running?", 0);
            text += value;
            const events = text.split("\n\n");
            text = events.pop();
            for (const event of events) {
                if (!event.startsWith("data: ")) continue;
                const data = event.slice(6);
                if (data === "[DONE]") return;
                const chunk = JSON.parse(data);
                if (chunk.error) throw new ApiError(chunk.error.message, chunk.error.code);
                yield chunk;
            }
        }
    } finally {
        reader.cancel().catch(() => {});
    }
}
