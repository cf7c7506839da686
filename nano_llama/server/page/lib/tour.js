// The tour: eight steps over the page's own live data. Tests: tests/page/test_page.py.

import { h } from "./dom.js";

const until = async (ready) => {
    for (let tries = 0; tries < 400 && !ready(); tries++) await new Promise((done) => setTimeout(done, 50));
};

/** [what to do, where to look, what to say] */
const STEPS = [
    [null, "#writing", "Here you write, and the model that is really serving goes on."],
    [async (desk, writer) => {
        desk.store.set({ seed: 1, at: -1 });
        writer.write();
        await until(() => desk.run?.tokens.length > 20 || !desk.busy);
    }, "#writers nl-river", "This text was written token by token. The stronger a token's colour and the thicker its line, the more it surprised the model itself."],
    [(desk) => desk.store.set({ view: "alternatives", at: Math.min(3, desk.run.tokens.length - 1) }), "#looking", "One token is open. These could have stood there: on the left what the model thinks, on the right what sampling made of it."],
    [(desk) => desk.store.set({ view: "why" }), "#looking", "Why this one? From top to bottom every setting changes the bar or cuts it; at the end a number drawn from the seed falls on one token. Where the first bar comes from is seen in Logit lens, Attention and Who wrote it."],
    [(desk) => desk.store.set({ temperature: 0.3 }), "#looking nl-why", "The temperature is 0.3 now: the likely tokens grow. Move the sliders; the page computes at once, and the server confirms."],
    [(desk) => desk.store.set({ view: "reads", temperature: 0.8 }), "#looking", "The model reads no letters: your text is cut into pieces, and each is a number. Choose one to see what it was merged from."],
    [async (desk) => {
        const at = Math.min(20, desk.run.tokens.length - 1); // beyond the first block, so that there is one to share
        desk.store.set({ view: "alternatives", at });
        await until(() => document.querySelector("nl-alternatives").dataset.at === String(at));
        document.querySelector("nl-alternatives tr:not(.chosen) [data-choice]")?.click();
        await until(() => desk.run.tokens.length > at + 9 || !desk.busy);
        desk.store.set({ view: "branches" });
    }, "#looking", "Another token was taken, and a branch grew. The blocks that it shares with the first text are kept once. Blocks and Timeline show the engine at this work."],
    [(desk) => desk.store.set({ view: "grammar" }), "#looking", "Last, a rule: choose one, write again, and see how much of the vocabulary it leaves. The address of this page holds all you see: send it to somebody."],
];

export function startTour(desk, writer) {
    document.querySelector(".tour")?.remove();
    let at = -1;
    const says = h("p", { "aria-live": "polite" }), next = h("button", { class: "primary" }, "Next"), end = h("button", { class: "quiet" }, "End the tour");
    const box = h("aside", { class: "tour", "aria-label": "Tour" }, says, h("div", { class: "actions" }, next, end));
    const light = (selector) => {
        for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
        const found = selector && document.querySelector(selector);
        found?.classList.add("lit");
        found?.scrollIntoView({ block: "nearest" });
    };
    const leave = () => (light(null), box.remove(), document.getElementById("tour").focus());
    const go = async () => {
        if (++at === STEPS.length) return leave();
        const [act, where, text] = STEPS[at];
        next.disabled = true;
        await act?.(desk, writer);
        light(where);
        says.textContent = `${at + 1} of ${STEPS.length}. ${text}`;
        next.textContent = at + 1 === STEPS.length ? "Done" : "Next";
        next.disabled = false;
        return next.focus();
    };
    next.addEventListener("click", go);
    end.addEventListener("click", leave);
    box.addEventListener("keydown", (event) => event.key === "Escape" && (event.stopPropagation(), leave()));
    document.body.append(box);
    return go();
}
