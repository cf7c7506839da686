// <nl-why>: why this token. The real distribution, what each setting cuts off it, and the draw as a needle on a bar.
// The sliders recompute here, at once; then the server computes the same over its whole vocabulary. View 2.
// Tests: tests/page/test_why.py.

import { fill, h, hint, many, nameOf, percent, s, table, twin } from "../lib/dom.js";
import { inspect } from "../lib/run.js";
import { bar, confirmed, estimated, uniform } from "../lib/sampling.js";
import { SAMPLING, samplingOf } from "../lib/state.js";

const PAUSE = 250; // ms without a change until the server is asked
const NAMES = { min_p: "min-p", top_k: "top-k", top_p: "top-p", min_tokens: "min tokens" };
const LISTED = 24; // rows of the table

export class Why extends HTMLElement {
    connectedCallback() {
        if (this.picture) return;
        this.intro = h("p");
        this.picture = h("div", { class: "steps" });
        this.verdict = h("p", { role: "status" });
        this.twin = h("div");
        this.sliders = h("nl-settings");
        this.replaceChildren(this.intro, this.picture, this.verdict, this.sliders, this.twin);
    }

    async show({ run, at, store }) {
        if (!this.listening) {
            this.listening = true;
            this.sliders.show(store, SAMPLING);
            store.addEventListener("change", () => !this.closest("[hidden]") && this.current && this.recompute());
        }
        const token = run?.tokens[at];
        for (const part of [this.picture, this.verdict, this.sliders, this.twin]) part.hidden = !token;
        this.current = null;
        if (!token) return void (this.intro.textContent = run ? "Choose a token of the text: here you see why the sampler took it." : "Write something and choose one of its tokens: here you see why the sampler took it.");
        const current = { run, at, token, store };
        this.intro.replaceChildren("Why ", h("b", { class: "chip" }, nameOf(token.text)), token.picked ? "? You chose it; the sampler would have drawn:" : "? From top to bottom:");
        try {
            current.answer = await inspect(run.inspection(at, run.settings));
        } catch (error) {
            this.verdict.textContent = error.message;
            return;
        }
        this.current = current;
        await this.confirm();
    }

    /** At once, from the logits that are here. */
    recompute() {
        const { answer, run, at, store } = this.current, settings = samplingOf(store.state), body = run.inspection(at, settings);
        this.draw(answer, estimated(answer, settings, body.prompt, body.output), uniform(settings.seed, answer.position), settings, null);
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.confirm(), PAUSE);
    }

    /** By the server, over all tokens. */
    async confirm() {
        const current = this.current;
        if (!current) return;
        const settings = samplingOf(current.store.state);
        try {
            const answer = await inspect(current.run.inspection(current.at, settings));
            const asked = JSON.stringify(samplingOf(current.store.state)) === JSON.stringify(settings);
            if (current === this.current && asked) this.draw(answer, confirmed(answer, settings.temperature), answer.draw.u, settings, answer.draw);
        } catch (error) {
            if (current === this.current) this.verdict.textContent = error.message;
        }
    }

    draw({ top }, made, u, settings, drawn) {
        const last = made.at(-1).p, { parts, hit } = drawn ? serverBar(top, drawn) : bar(top.ids, last, u ?? 0);
        const chosen = drawn ? top.ids.indexOf(drawn.token) : parts[hit].i;
        const name = nameOf(drawn ? drawn.text : top.texts[chosen]);
        const rows = made.map((one) => this.step(one, top, chosen, settings));
        rows.push(this.needle(parts, top, u, chosen, settings));
        this.picture.replaceChildren(...rows);
        this.picture.dataset.by = drawn ? "server" : "page";
        this.picture.dataset.token = drawn ? drawn.token : top.ids[chosen];
        const same = (drawn ? drawn.token : top.ids[chosen]) === this.current.token.id;
        const drawing = u === null || settings.temperature === 0 ? "it is the likeliest" : `seed ${settings.seed} gives ${u.toFixed(4)} at this place, which falls on its ${percent(drawn ? drawn.p : last[chosen])} of the bar`;
        this.verdict.replaceChildren(h("b", { class: "chip" }, name), ` ${same ? "stands in the text" : "would come, not what stands in the text"}: ${drawing}. `,
            h("small", {}, drawn ? "Confirmed by the server over its whole vocabulary." : `Computed in this page from the ${top.ids.length} likeliest tokens; the server is asked …`));
        const listed = last.map((_, i) => i).slice(0, LISTED);
        if (chosen >= LISTED) listed.push(chosen);
        const columns = ["token", "id", ...made.map((one) => NAMES[one.name] ?? one.name)];
        const numbers = listed.map((i) => [nameOf(top.texts[i]), top.ids[i], ...made.map((one) => (one.p[i] ? percent(one.p[i]) : "cut"))]);
        fill(this.twin, twin(table("Probability after each step", columns, numbers, (at) => ({ class: listed[at] === chosen ? "chosen" : null })), this.twin));
    }

    /** One step: a bar of all the mass, likeliest tokens first. */
    step({ name, says, p, left, kept }, top, chosen, settings) {
        let end = 0;
        const order = p.map((_, i) => i).filter((i) => p[i] > 0).sort((a, b) => p[b] - p[a]);
        const parts = order.map((i) => ({ i, from: end, to: (end += p[i]) }));
        const gone = kept < 0.99995 ? `, ${percent(1 - kept)} of the mass cut` : "";
        const remark = left === null ? gone.slice(2) : `${many(left, "token")}${gone}`;
        const set = name in settings ? ` ${settings[name]}` : "", title = `${NAMES[name] ?? name}${set}`;
        return h("div", { class: "step" },
            h("div", { class: "line" }, h("b", {}, title), h("small", {}, says), h("small", { class: "right" }, remark)),
            strip(parts, top, chosen, `${title}: ${says}. ${remark}`));
    }

    needle(parts, top, u, chosen, settings) {
        if (u === null || settings.temperature === 0) return hint("Temperature 0: nothing is drawn, the likeliest token is taken.");
        const made = strip(parts, top, chosen, `The draw: ${u.toFixed(4)} falls on ${chosen < 0 ? "a token outside the list" : nameOf(top.texts[chosen])}`);
        made.classList.add("drawn");
        made.append(s("g", { class: "needle" }, s("line", { x1: `${100 * u}%`, x2: `${100 * u}%`, y1: 0, y2: 38 })));
        return h("div", { class: "step" },
            h("div", { class: "line" }, h("b", {}, "draw"), h("small", {}, "the bar again, tokens by ascending id; the needle is the seed's number"), h("small", { class: "right" }, `u = ${u.toFixed(4)}`)), made);
    }
}

/** The bar as the server has it: what lies between the listed tokens belongs to others. */
function serverBar(top, drawn) {
    const parts = top.ids.map((_, i) => i).filter((i) => top.p[i] > 0).sort((a, b) => top.ids[a] - top.ids[b])
        .map((i) => ({ i, from: top.from[i], to: top.from[i] + top.p[i] }));
    return { parts, hit: parts.findIndex((part) => top.ids[part.i] === drawn.token) };
}

/** A bar from 0 to 1. parts narrower than a third of a percent are left to the ground's colour. */
function strip(parts, top, chosen, label) {
    const shown = parts.filter(({ i, from, to }) => to - from > 0.0033 || i === chosen);
    return s("svg", { class: "strip", role: "img", "aria-label": label, width: "100%", height: 30 },
        s("rect", { class: "rest", width: "100%", height: 30 }),
        shown.map(({ i, from, to }, place) => {
            const wide = to - from, text = nameOf(top.texts[i]);
            return s("svg", { x: `${100 * from}%`, width: `${100 * wide}%`, height: 30 },
                s("rect", { class: i === chosen ? "part chosen" : place % 2 ? "part odd" : "part", width: "100%", height: 30 }, s("title", {}, `${text} ${percent(wide)}`)),
                wide > 0.02 * text.length + 0.02 && s("text", { class: i === chosen ? "on" : null, x: 5, y: 20 }, text));
        }));
}

customElements.define("nl-why", Why);
