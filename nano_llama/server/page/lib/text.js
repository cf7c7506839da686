// Tokens and numbers as people read them, and what a screen reader is told while a text is written.
// Tests: tests/page/test_page.py.

/** A token's text where it stands alone: its spaces and line ends are seen. */
export function visible(text) {
    if (text === "") return "∅";
    return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍");
}

/** 0.1234 -> "12.3 %". */
export function percent(p) {
    if (p > 0 && p < 0.0001) return "< 0.01 %";
    return `${(100 * p).toFixed(p < 0.01 ? 2 : 1)} %`;
}

/** Bits of surprisal: how many fair coin flips an event of this log-probability is worth. */
export function bits(logprob) {
    return Math.max(0, -logprob / Math.LN2);
}

export function count(n) {
    return n.toLocaleString("en");
}

/** Speaks whole sentences into a live region: token by token nobody could follow. */
export class Speaker {
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
