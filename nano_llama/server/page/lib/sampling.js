// What each setting does to the distribution, in the server's order (nano_llama/core/sampling), from an answer of
// POST /inspect/next. A step is {name, says, p, left, kept}: p holds the probability of each listed token after it (0:
// cut), left how many tokens may still come (null: not known here), kept the mass that the step kept.
// Tests: tests/page/test_why.py compares it with the server's own answers.

const MASK = 0xffffffffn;
const SAYS = {
    model: "what the model itself thinks",
    constraint: "only what the grammar allows",
    min_tokens: "not the end yet",
    penalties: "tokens that were there already change",
    temperature: "logits divided: below 1 sharper, above 1 flatter",
    min_p: "only tokens at least this share of the likeliest",
    top_k: "only so many of the likeliest",
    top_p: "only the likeliest that hold this mass",
};

/** The number in [0, 1) that the server draws for a seed and a position: ten rounds of Philox4x32. */
export function uniform(seed, position) {
    const wide = BigInt.asUintN(64, BigInt(seed)), at = BigInt(position);
    let [c0, c1, c2, c3] = [at & MASK, at >> 32n, 0n, 0n], k0 = wide & MASK, k1 = wide >> 32n;
    for (let round = 0; round < 10; round++) {
        const a = 0xd2511f53n * c0, b = 0xcd9e8d57n * c2;
        [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
        k0 = (k0 + 0x9e3779b9n) & MASK;
        k1 = (k1 + 0xbb67ae85n) & MASK;
    }
    return Number((c0 << 21n) | (c1 >> 11n)) * 2 ** -53;
}

/** The steps as the server computed them, over its whole vocabulary. */
export function confirmed(answer, temperature) {
    const { logits, adjusted, cut_by: cutBy, p: last } = answer.top, names = answer.cuts.map((cut) => cut.name);
    const made = [step("model", logits.map((x) => Math.exp(x - answer.logsumexp)), answer.vocab_size, 1)];
    const tempered = adjusted.map((x) => (x === null ? 0 : Math.exp((x - adjusted[best(adjusted)]) / temperature)));
    const after = ["min_p", "top_k", "top_p"], survivor = best(last);
    let sum = temperature > 0 ? tempered[survivor] / last[survivor] : 1; // over the survivors; before a cut it was more
    for (const { name, mass } of answer.cuts) if (after.includes(name)) sum /= mass;
    answer.cuts.forEach(({ name, left, mass }, at) => {
        const gone = (i) => cutBy[i] !== null && names.indexOf(cutBy[i]) <= at && names.includes(cutBy[i]);
        if (after.includes(name)) sum *= mass;
        const p = logits.map((x, i) => {
            if (gone(i)) return 0;
            if (at === names.length - 1) return last[i];
            if (name === "constraint" || name === "min_tokens") return made.at(-1).p[i] / mass;
            if (name === "penalties") return Math.exp(adjusted[i] - answer.adjusted_logsumexp);
            return tempered[i] / sum;
        });
        made.push(step(name, p, left, mass));
    });
    return made;
}

/** The same at other settings, at once and without the server: over the listed tokens alone, so it may be a little off. */
export function estimated(answer, settings, promptIds, outputIds) {
    const { ids, logits, cut_by: cutBy } = answer.top, t = settings.temperature;
    const barred = (i) => cutBy[i] === "constraint" || cutBy[i] === "min_tokens";
    const made = [step("model", logits.map((x) => Math.exp(x - answer.logsumexp)), answer.vocab_size, 1)];
    const push = (name, weights, kept) => made.push(step(name, shares(weights), null, kept));
    if (logits.some((_, i) => barred(i))) push("constraint", made[0].p.map((p, i) => (barred(i) ? 0 : p)), 1);
    const x = penalized(ids, logits, settings, promptIds, outputIds).map((v, i) => (barred(i) ? -Infinity : v));
    const largest = x[best(x)];
    if (x.some((v, i) => v !== logits[i] && !barred(i))) push("penalties", x.map((v) => Math.exp(v - largest)), 1);
    if (t === 0) return push("temperature", x.map((_, i) => Number(i === best(x))), 1), made;
    const weights = x.map((v) => Math.exp((v - largest) / t));
    if (t !== 1) push("temperature", weights, 1);
    const cut = (name, keeps) => {
        const before = shares(weights);
        weights.forEach((w, i) => (weights[i] = keeps(w, i, before) ? w : 0));
        push(name, weights, before.reduce((sum, p, i) => sum + (weights[i] ? p : 0), 0));
    };
    if (settings.min_p > 0) cut("min_p", (w) => w >= settings.min_p);
    if (settings.top_k > 0 && settings.top_k < weights.filter(Boolean).length) {
        const floor = [...weights].sort((a, b) => b - a)[settings.top_k - 1];
        cut("top_k", (w) => w >= floor);
    }
    if (settings.top_p < 1) {
        const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a] || ids[a] - ids[b]), all = shares(weights);
        const nucleus = new Set();
        for (let i = 0, mass = 0; i < order.length && mass < settings.top_p; mass += all[order[i++]]) nucleus.add(order[i]);
        cut("top_p", (w, i) => nucleus.has(i));
    }
    return made;
}

/** The bar of the draw: the tokens by ascending id, and the one on which u falls. -> [{i, from, to}], its place or -1 */
export function bar(ids, p, u) {
    let end = 0;
    const order = ids.map((_, i) => i).filter((i) => p[i] > 0).sort((a, b) => ids[a] - ids[b]);
    const total = order.reduce((sum, i) => sum + p[i], 0);
    const parts = order.map((i) => ({ i, from: end, to: (end += p[i] / total) }));
    return { parts, hit: parts.findIndex((part) => part.to > u) };
}

function penalized(ids, logits, settings, promptIds, outputIds) {
    const seen = new Set([...promptIds, ...outputIds]), counts = new Map(), r = settings.repetition_penalty;
    for (const id of outputIds) counts.set(id, (counts.get(id) ?? 0) + 1);
    return logits.map((logit, i) => {
        let x = logit;
        if (seen.has(ids[i])) x = x > 0 ? x / r : x * r;
        const times = counts.get(ids[i]) ?? 0;
        return times ? x - settings.frequency_penalty * times - settings.presence_penalty : x;
    });
}

function step(name, p, left, kept) {
    return { name, says: SAYS[name] ?? "", p, left, kept };
}

function shares(weights) {
    const total = weights.reduce((sum, w) => sum + w, 0);
    return weights.map((w) => w / total);
}

function best(values) {
    return values.reduce((top, value, i) => (value !== null && (values[top] === null || value > values[top]) ? i : top), 0);
}
