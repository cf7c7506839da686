// One text that the model wrote: its prompt as ids, its tokens as they come, and what was asked for.
// Tests: tests/page/test_page.py.

import { ask, requestId, stream } from "./api.js";

const REQUESTS = 200; // of this page, whose texts it knows
export const TEXT = "your text"; // what these requests are
const strict = new TextDecoder("utf-8", { fatal: true });

/**
 * given: of a branch, the tokens at the beginning that this request did not compute but was sent.
 * token: {id, text, bytes, logprob, picked}; text null: bytes that are a part of a character.
 */
class Run extends EventTarget {
    constructor({ settings, constraint = {}, promptIds = [], given = [], parent = null }) {
        super();
        Object.assign(this, { settings, constraint, promptIds, parent, given: given.length, tokens: [...given] });
        this.usage = this.finish = this.error = null;
        this.running = false;
        this.text = "";
        this.ids = []; // and entries: what came, and waits for the other
        this.entries = [];
        this.stopper = new AbortController();
    }

    /** Write: from a text, messages, or (a branch) from the ids so far. */
    async write({ prompt, messages, maxTokens, more = {} }) {
        const path = messages ? "/v1/chat/completions" : "/v1/completions";
        const asked = messages ? { messages, logprobs: true } : { prompt: prompt ?? this.idsBefore(this.tokens.length), logprobs: 0 };
        const body = { ...asked, ...more, ...this.settings, ...this.constraint, max_tokens: maxTokens, stream: true, return_token_ids: true, stream_options: { include_usage: true } };
        const id = requestId();
        wrote(id, () => this.idsBefore(this.tokens.length), TEXT);
        this.running = true;
        this.change();
        try {
            for await (const chunk of stream(path, body, this.stopper.signal, id)) this.take(chunk);
        } catch (error) {
            if (error.name === "AbortError") this.finish = "stopped by you";
            else this.error = error;
        }
        this.running = false;
        this.change();
        return this;
    }

    take(chunk) {
        if (chunk.usage) this.usage = chunk.usage;
        const [choice] = chunk.choices;
        if (!choice) return;
        const prompt = chunk.prompt_token_ids ?? choice.prompt_token_ids;
        if (prompt && !this.given) this.promptIds = prompt;
        const text = choice.text ?? choice.delta?.content ?? "";
        const { content, tokens = [], token_logprobs: logprobs } = choice.logprobs ?? {};
        const entries = content?.map(({ bytes, logprob }) => ({ bytes: Uint8Array.from(bytes), logprob }));
        this.entries.push(...(entries ?? tokens.map((name, at) => ({ bytes: bytesOf(name), logprob: logprobs[at] }))));
        this.ids.push(...(choice.token_ids ?? []));
        // An id may come before its entry: that waits until the text of its character is whole.
        while (this.ids.length && this.entries.length) {
            const entry = this.entries.shift();
            this.tokens.push({ id: this.ids.shift(), text: textOf(entry.bytes), ...entry });
        }
        this.text += text;
        if (choice.finish_reason) this.finish = choice.finish_reason;
        this.change(text);
    }

    stop() {
        this.stopper.abort();
    }

    change(text = "") {
        this.dispatchEvent(new CustomEvent("change", { detail: text }));
    }

    /** All ids before the token `at`. */
    idsBefore(at) {
        return [...this.promptIds, ...this.tokens.slice(0, at).map((token) => token.id)];
    }

    /** The body of /inspect/next for the position of the token `at`, at these settings. */
    inspection(at, settings) {
        const before = this.tokens.slice(0, at).map((token) => token.id), given = Math.min(this.given, at);
        return { prompt: [...this.promptIds, ...before.slice(0, given)], output: before.slice(given), ...settings, ...this.constraint };
    }

    /** The same text up to `at`, then another token: what comes then is not written yet. */
    branch(at, token, settings) {
        const given = [...this.tokens.slice(0, at), { ...token, picked: true }];
        const made = new Run({ settings, promptIds: this.promptIds, given, parent: { run: this, at } });
        const bytes = given.flatMap((one) => [...(one.bytes ?? new TextEncoder().encode(one.text ?? "\ufffd"))]);
        made.text = new TextDecoder().decode(Uint8Array.from(bytes));
        return made;
    }
}

export function newRun(state, constraint) {
    return new Run({ settings: state.written, constraint });
}

const answers = new Map(); // of /inspect/next, by body

/** The distribution of a position. The same question is asked once. */
export function inspect(body) {
    const key = JSON.stringify(body);
    if (!answers.has(key)) {
        if (answers.size > 64) answers.delete(answers.keys().next().value);
        answers.set(key, ask("/inspect/next", body).catch((error) => (answers.delete(key), Promise.reject(error))));
    }
    return answers.get(key);
}

export const written = new Map(); // id of a request -> {ids(choice) -> its tokens so far, what: in words}

/** Note what the page itself sends: for those who see its steps. */
export function wrote(id, ids, what) {
    written.set(id, { ids, what });
    if (written.size > REQUESTS) written.delete(written.keys().next().value);
}

/** A token's bytes from the name that /v1/completions gives it: its text, or "bytes:\\xf0\\x9f". */
function bytesOf(name) {
    const written = /^bytes:((\\x[0-9a-f]{2})+)$/.exec(name)?.[1];
    return written ? Uint8Array.from(written.match(/[0-9a-f]{2}/g), (two) => parseInt(two, 16)) : new TextEncoder().encode(name);
}

function textOf(bytes) {
    try {
        return strict.decode(bytes);
    } catch {
        return null;
    }
}
