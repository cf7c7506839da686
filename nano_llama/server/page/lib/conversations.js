// Conversations, kept in this browser alone (localStorage). Tests: tests/page/test_page.py.

const KEY = "nano-llama conversations";
const MOST = 50;

/** [{id, title, system, turns: [{role, text}]}], the latest first; what is damaged is left out. */
export function load() {
    try {
        return JSON.parse(localStorage.getItem(KEY) ?? "[]").filter(isConversation);
    } catch {
        return [];
    }
}

/** Returns whether there was room. */
export function save(conversations) {
    try {
        localStorage.setItem(KEY, JSON.stringify(conversations.slice(0, MOST).map(({ id, system, turns }) => ({ id, system, turns: turns.map(({ role, text }) => ({ role, text })) }))));
        return true;
    } catch {
        return false;
    }
}

/** A conversation without turns. */
export function fresh() {
    return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), system: "", turns: [] };
}

export function titleOf({ turns }) {
    const first = turns[0]?.text.trim().replace(/\s+/g, " ") ?? "";
    return first ? first.slice(0, 40) : "New conversation";
}

/** A conversation as Markdown. */
export function toMarkdown({ system, turns }) {
    const parts = [...(system ? [{ role: "system", text: system }] : []), ...turns];
    return parts.map(({ role, text }) => `**${role}**\n\n${text}\n`).join("\n");
}

function isConversation(one) {
    const isTurn = (turn) => ["user", "assistant"].includes(turn?.role) && typeof turn.text === "string";
    return typeof one?.id === "string" && typeof one.system === "string" && Array.isArray(one.turns) && one.turns.every(isTurn);
}
