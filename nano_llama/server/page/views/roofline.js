// <nl-roofline>: how fast the engine writes, against how fast memory can deliver what a step must read; and where the time of
// a step goes. View 10. Tests: tests/page/test_engine.py.

import { ask } from "../lib/api.js";
import { count, fill, h, head, hint, lazyTwin, many, percent, s, table } from "../lib/dom.js";
import { engine, EngineView } from "../lib/engine.js";

const HEIGHT = 240, LEFT = 52, BELOW = 34; // px
const PHASES = {
    embed: "tokens become vectors", norm: "vectors are scaled", qkv: "queries, keys and values", attention: "looks back over the text", o: "what attention found",
    gate_up: "the first half of the MLP", down: "its second half", head: "a score for each token of the vocabulary", waiting: "threads wait for each other",
};

export class Roofline extends EngineView {
    build() {
        this.facts = h("p");
        this.measure = h("button", { onclick: () => this.ask() }, "Measure the memory");
        this.said = h("span", { class: "hint", role: "status" });
        this.picture = h("div");
        this.parts = h("div");
        this.twin = lazyTwin(() => this.table());
        fill(this,
            h("p", {}, "To write one token, all weights must come from memory, and the keys and values of the text. So memory sets a roof on the speed. Requests of the same step share one reading of the weights, and the roof rises with them: send a dozen, and compare."),
            this.bar.element, this.facts, h("div", { class: "actions" }, this.measure, this.said), this.picture, this.twin.element, this.parts);
    }

    async ask() {
        this.measure.disabled = true;
        this.said.textContent = "This takes a moment …";
        try {
            engine.machine = await ask("/inspect/roofline", {});
            this.said.textContent = engine.machine.bandwidth === null ? "The engine was at work: memory is measured while nothing runs. Try again." : "";
        } catch (error) {
            this.said.textContent = error.message;
        }
        this.measure.disabled = false;
        this.refresh();
    }

    draw() {
        const { machine } = engine;
        this.measure.hidden = !machine || machine.bandwidth !== null;
        if (!machine) return;
        fill(this.facts, "A step reads ", h("b", {}, size(machine.weight_bytes)), " of weights once, and for each request ", h("b", {}, size(machine.kv_bytes_per_token)), " of the cache per token of its text. This machine's memory delivers ",
            machine.bandwidth === null ? "… (not measured yet)" : h("b", {}, `${(machine.bandwidth / 1e9).toFixed(1)} GB/s`), machine.bandwidth !== null && ` (measured once, with ${many(machine.threads, "thread")}; other programs make it less)`, ".");
        this.drawRoof(groupsOf(engine.steps, machine), machine);
        this.drawParts(machine);
    }

    drawRoof(groups, machine) {
        const points = groups.flatMap((group) => group.rates.map((rate) => [group.readers, rate]));
        if (!points.length) return fill(this.picture, hint("No step that only writes since you looked here. Send readers, or write something."));
        const width = Math.max(280, this.picture.clientWidth), most = Math.max(4, ...groups.map((group) => group.readers + 1));
        const context = groups.reduce((sum, group) => sum + group.context, 0) / groups.reduce((sum, group) => sum + group.steps * group.readers, 0);
        const roof = machine.bandwidth && ((readers) => roofOf(readers, readers * context, machine));
        const rates = points.map(([, rate]) => rate), top = 1.08 * Math.max(...rates, roof ? roof(most) : 0);
        const x = (readers) => LEFT + (readers / most) * (width - LEFT - 12), y = (rate) => HEIGHT - BELOW - (rate / top) * (HEIGHT - BELOW - 16);
        const line = roof && Array.from({ length: 41 }, (_, at) => (at / 40) * most).map((readers) => `${x(readers).toFixed(1)},${y(readers && roof(readers)).toFixed(1)}`).join(" ");
        const best = groups.at(-1), label = `${many(best.readers, "reader")} at once: ${rounded(best.rate)} tokens per second${roof ? `, ${percent(best.rate / best.roof)} of the roof` : ""}`;
        const every = Math.ceil(most / 12), ticks = Array.from({ length: most + 1 }, (_, at) => at).filter((at) => at && at % every === 0);
        fill(this.picture, h("p", {}, h("b", {}, label), "."),
            s("svg", { class: "roofs", role: "img", "aria-label": label, width, height: HEIGHT },
                levels(top).map((rate) => [s("line", { class: "grid", x1: LEFT, x2: width, y1: y(rate), y2: y(rate) }), s("text", { x: LEFT - 6, y: y(rate) + 4, "text-anchor": "end" }, rounded(rate))]),
                ticks.map((at) => s("text", { x: x(at), y: HEIGHT - BELOW + 16, "text-anchor": "middle" }, at)),
                s("text", { x: LEFT, y: HEIGHT - 2 }, "requests that write in the same step"), s("text", { x: 0, y: 10 }, "tokens per second"),
                line && s("polyline", { class: "roof", points: line }),
                line && s("text", { class: "roof-name", x: x(most) - 4, y: Math.max(24, y(roof(most)) - 8), "text-anchor": "end" }, "the roof: bandwidth ÷ bytes per token"),
                points.map(([readers, rate]) => s("circle", { class: "point", cx: x(readers), cy: y(rate), r: 3 })),
                groups.map((group) => s("circle", { class: "median", cx: x(group.readers), cy: y(group.rate), r: 5 }, s("title", {}, `${group.readers}: ${rounded(group.rate)} tokens/s, the median of ${group.steps} steps`)))),
            hint("A faint point is a step, a full one the median of all with as many requests; steps that read prompts are left out. ", roof ? "What is missing to the roof is arithmetic, waiting and Python. A model small enough to stay in the processor's caches can be above it." : "The roof appears once the memory is measured."));
    }

    drawParts(machine) {
        if (!machine.phases) return fill(this.parts, hint(`Where the time of a step goes is not known here: ${machine.runner} does not time its parts.`));
        const steps = engine.steps.filter((step) => step.phases && writes(step));
        if (!steps.length) return fill(this.parts);
        const total = sum(steps, (step) => step.seconds), rows = machine.phases.map((name) => [name, PHASES[name] ?? "", sum(steps, (step) => step.phases[name])]);
        rows.push(["the rest", "scheduling, sampling, text: outside the model", total - sum(rows, (row) => row[2])]);
        return fill(this.parts, h("table", { class: "bars" },
            h("caption", {}, `Where the time of a step goes: the mean of ${many(steps.length, "step")} that only write`),
            head(["part", "what it does", "ms", "share"]),
            h("tbody", {}, rows.map(([name, says, seconds]) => h("tr", {}, h("td", {}, name), h("td", {}, h("small", {}, says)),
                h("td", { class: "number" }, ((1000 * seconds) / steps.length).toFixed(2)), h("td", { class: "before", "--p": Math.max(0, seconds / total).toFixed(4) }, percent(Math.max(0, seconds / total))))))));
    }

    table() {
        const { machine } = engine, groups = machine ? groupsOf(engine.steps, machine) : [];
        return table("Steps that only write, by how many requests write at once", ["requests", "steps", "tokens/s", "bytes per step", "roof, tokens/s", "of the roof"],
            groups.map((group) => [group.readers, group.steps, rounded(group.rate), size(group.bytes), group.roof ? rounded(group.roof) : "not measured", group.roof ? percent(group.rate / group.roof) : ""]));
    }
}

/** Whether each request of the step has one row, which brings a token. */
function writes(step) {
    return step.rows.every((row) => row.count === 1 && row.chooses) && step.others.rows === step.others.sequences && step.others.tokens === step.others.rows;
}

/** By number of requests: [{readers, steps, rates: each step's tokens/s, rate: the median, context: tokens, summed, bytes, roof}] */
function groupsOf(steps, machine) {
    const groups = new Map();
    for (const step of steps.filter(writes)) {
        const readers = step.rows.length + step.others.rows, group = groups.get(readers) ?? { readers, rates: [], context: 0 };
        group.rates.push(readers / step.seconds);
        group.context += sum(step.rows, (row) => row.position + 1) + step.others.context;
        groups.set(readers, group);
    }
    return [...groups.values()].sort((a, b) => a.readers - b.readers).map((group) => {
        const steps = group.rates.length, sorted = [...group.rates].sort((a, b) => a - b);
        return { ...group, steps, rate: (sorted[(steps - 1) >> 1] + sorted[steps >> 1]) / 2, bytes: bytesOf(group.context / steps, machine), roof: machine.bandwidth && roofOf(group.readers, group.context / steps, machine) };
    });
}

/** What a step reads whose requests attend to so many tokens in all. */
function bytesOf(context, machine) {
    return machine.weight_bytes + context * machine.kv_bytes_per_token;
}

function roofOf(readers, context, machine) {
    return (readers * machine.bandwidth) / bytesOf(context, machine);
}

function sum(all, of) {
    return all.reduce((so, one) => so + of(one), 0);
}

/** Round numbers from 0 to below the top. */
function levels(top) {
    const power = 10 ** Math.floor(Math.log10(top / 3)), every = power * [1, 2, 5].findLast((times) => times * power <= top / 3);
    return Array.from({ length: Math.floor(top / every) + 1 }, (_, at) => at * every);
}

function rounded(rate) {
    return rate && rate < 100 ? rate.toFixed(1) : count(Math.round(rate));
}

function size(bytes) {
    const [unit, name] = bytes >= 1e9 ? [1e9, "GB"] : bytes >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
    return `${(bytes / unit).toFixed(1)} ${name}`;
}

customElements.define("nl-roofline", Roofline);
