// <nl-blocks>: the cache of keys and values, block by block: which of the page's requests hold it, which share it, what is
// kept for later. View 8. Tests: tests/page/test_engine.py.

import { fill, h, lazyTwin, rove, table } from "../lib/dom.js";
import { engine, EngineView, hue, textsOf } from "../lib/engine.js";
import { engineBar } from "../lib/readers.js";
import { count, visible } from "../lib/text.js";

const ROUND = 32; // cells are added so many at a time

export class Blocks extends EngineView {
    build(info) {
        const { block_size: size, num_blocks: all } = info.engine;
        this.bar = engineBar();
        this.counts = h("p", { class: "parts", role: "status" });
        this.grid = h("div", { class: "cells", role: "listbox", "aria-label": "Blocks by number", "aria-orientation": "horizontal" });
        this.grid.addEventListener("click", ({ target }) => this.choose(target.closest("[role=option]")));
        rove(this.grid, "[role=option]", (cell) => this.choose(cell));
        this.rest = h("p", { class: "hint" });
        this.detail = h("div", { "aria-live": "polite" }, h("p", { class: "hint" }, "Choose a block to see who holds it, and the text in it."));
        this.twin = lazyTwin(() => this.table());
        fill(this,
            h("p", {}, `The model keeps what it has read (keys and values) in ${count(all)} blocks of ${size} tokens. Every request has a list of blocks; where two texts begin alike, they hold the same ones. Send readers, or write something, and watch.`),
            this.bar.element, this.counts, this.grid,
            h("p", { class: "hint" }, "A number is a request, ×2 means two of them, the tint how full the block is. A ring: a request found this block here and did not compute it again."),
            this.rest, this.detail, this.twin.element);
    }

    refresh() {
        this.bar.refresh();
        if (!engine.settings) return;
        const { num_blocks: all } = engine.settings, held = engine.blocks(), { kept } = engine, last = engine.steps.at(-1);
        const free = last?.blocks ?? { held: 0, kept: 0, empty: all };
        fill(this.counts, [["held by your requests", held.size, "mine"], ["held by others alone", Math.max(0, free.held - held.size), "others"], ["kept for a text that begins alike", free.kept, "kept"], ["empty", free.empty, "empty"]]
            .map(([name, value, kind]) => h("span", {}, h("b", { class: `tally ${kind}` }, count(value)), ` ${name}`)));
        const most = Math.max(2 * ROUND, ...held.keys(), ...kept.keys(), this.grid.children.length - 1);
        for (let at = this.grid.children.length; at < Math.min(all, Math.ceil((most + 1) / ROUND) * ROUND); at++)
            this.grid.append(h("div", { role: "option", "aria-selected": "false", tabindex: at ? -1 : 0, "data-at": at }));
        for (const cell of this.grid.children) this.paint(cell, held.get(Number(cell.dataset.at)), kept.get(Number(cell.dataset.at)));
        const left = all - this.grid.children.length;
        this.rest.textContent = left > 0 ? `… and ${count(left)} more blocks, up to number ${count(all - 1)}, that no request of this page has held.` : "";
        if (this.chosen) this.describe(this.chosen);
        this.twin.refresh();
    }

    /** Only what has changed since. */
    paint(cell, held, kept) {
        const one = held?.holders[0] ?? kept?.one, many = held?.holders.length, state = many > 1 ? "held shared" : held ? "held" : kept ? "kept" : "", text = many > 1 ? `×${many}` : one?.label ?? "";
        const key = `${state} ${text} ${one?.label} ${held?.tokens} ${held?.found}`;
        if (cell.key === key) return;
        if (held?.found && !cell.key?.endsWith("true")) cell.animate?.([{ transform: "scale(1.5)" }, {}], matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 600);
        cell.key = key;
        cell.className = held?.found ? `${state} found` : state;
        cell.textContent = text;
        cell.title = cell.ariaLabel = `Block ${cell.dataset.at}: ${saysOf(held, kept)}`;
        if (one) cell.style.setProperty("--hue", hue(one));
        cell.style.setProperty("--full", held ? held.tokens / engine.settings.block_size : 1);
    }

    choose(cell) {
        if (!cell) return;
        for (const other of this.grid.children) other.setAttribute("aria-selected", String(other === cell)), (other.tabIndex = other === cell ? 0 : -1);
        this.chosen = Number(cell.dataset.at);
        this.told = null;
        this.describe(this.chosen);
    }

    async describe(at) {
        const size = engine.settings.block_size, held = engine.blocks().get(at), kept = engine.kept.get(at), from = (held ?? kept)?.index * size;
        const one = held?.holders[0] ?? kept?.one, tokens = held?.tokens ?? size, key = [at, held?.holders.map((holder) => holder.label), kept?.one.label, tokens].join(" ");
        if (this.told === key) return;
        this.told = key;
        const ids = one && engine.ids(one)?.slice(from, from + tokens);
        let texts = [], text = "";
        try {
            texts = await textsOf(ids);
            text = texts.map(visible).join("");
        } catch (error) {
            text = error.message;
        }
        if (this.told !== key) return;
        fill(this.detail,
            h("p", {}, h("b", {}, `Block ${at}: `), `${saysOf(held, kept)}.`),
            one && h("p", {}, `In it: ${tokens} of ${size} tokens, number ${from + 1} to ${from + tokens} of ${engine.what(one)}. `, text ? h("span", { class: "chip" }, text) : h("small", {}, "Their text is not known here.")));
    }

    table() {
        const held = engine.settings ? engine.blocks() : new Map(), size = engine.settings?.block_size;
        const rows = [...held].map(([block, entry]) => [block, "held", entry.tokens, entry.holders.length, entry.holders.map((one) => one.label).join(", "), entry.found ? "found" : "computed"]);
        for (const [block, { one }] of engine.kept) rows.push([block, "kept", size, 0, `was ${one.label}`, ""]);
        return table("The blocks of this page's requests", ["block", "state", "tokens in it", "references", "requests", "how"], rows.sort((a, b) => a[0] - b[0]));
    }
}

function saysOf(held, kept) {
    if (kept) return `kept; request ${kept.one.label} has ended, and the next text that begins like its will find it here`;
    if (!held) return "not held by this page: empty, or of others, whose texts nobody sees";
    const labels = held.holders.map((one) => one.label), found = held.found ? "; found here, not computed again" : "";
    return labels.length > 1 ? `held by the requests ${labels.join(", ")} at once, computed once${found}` : `held by request ${labels[0]}${found}`;
}

customElements.define("nl-blocks", Blocks);
