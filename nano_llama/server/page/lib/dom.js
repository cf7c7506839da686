// Elements made by hand, and tokens and numbers as people read them. Text enters the page here, as text nodes alone: nothing
// is ever parsed as HTML.
// Tests: tests/page/test_page.py.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("button", {class: "quiet", onclick: stop}, "Stop"). False and null attributes are left out. */
export function h(tag, properties = {}, ...children) {
    return furnish(document.createElement(tag), properties, children);
}

/** The same in SVG. */
export function s(tag, properties = {}, ...children) {
    return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, properties, children) {
    for (const [name, value] of Object.entries(properties)) {
        if (value === false || value === null || value === undefined) continue;
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (name.startsWith("--")) element.style.setProperty(name, value);
        else if (name === "value" || name === "checked") element[name] = value;
        else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...shown(children));
    return element;
}

/** Put these children, and no others, into an element; null and false are left out. */
export function fill(element, ...children) {
    element.replaceChildren(...shown(children));
}

function shown(children) {
    return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** A remark: how to read a picture, or why there is none yet. */
export function hint(...children) {
    return h("p", { class: "hint" }, children);
}

/** What went wrong. */
export function alarm(text) {
    return h("p", { class: "error", role: "alert" }, text);
}

/** A table of texts and numbers. columns: names; a row is a list of texts, numbers or elements. */
export function table(caption, columns, rows, rowProperties = () => ({})) {
    const cell = (value) => h("td", { class: typeof value === "object" ? null : isNumeric(value) && "number" }, value);
    return h("table", {}, h("caption", {}, caption), head(columns, (at) => rows.length > 0 && isNumeric(rows[0][at])),
        h("tbody", {}, rows.map((row, at) => h("tr", rowProperties(at), row.map(cell)))));
}

/** The head of a table; ofNumbers(at): the column has numbers. */
export function head(columns, ofNumbers = () => false) {
    return h("thead", {}, h("tr", {}, columns.map((name, at) => h("th", { scope: "col", class: ofNumbers(at) && "number" }, name))));
}

/** Room for a table that may be wider than the page. */
export function scroller(made) {
    return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": made.caption.textContent }, made);
}

/** A picture's twin: the same numbers, folded away; or unfolded, as the twin is that it replaces in a place. */
export function twin(made, place) {
    return h("details", { class: "twin", open: place?.querySelector(".twin")?.open }, h("summary", {}, "The same as a table"), scroller(made));
}

/** Options, one of which is chosen by a click, by Enter, or (moved) by walking to it. choose(option, whether by Enter) */
export function listbox(properties, label, options, choose, moved = choose) {
    const made = h("div", { role: "listbox", "aria-label": label, "aria-orientation": "horizontal", ...properties }, options);
    const at = (event, byKey) => {
        const option = event.target.closest("[role=option]");
        if (option) choose(option, byKey);
    };
    made.addEventListener("click", (event) => at(event, false));
    made.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), at(event, true)));
    rove(made, "[role=option]", (option) => moved(option, false));
    return made;
}

/** Mark one of these as chosen; without one, the first can be reached by Tab. */
export function select(options, chosen) {
    for (const one of options) {
        one.setAttribute("aria-selected", String(one === chosen));
        one.tabIndex = one === (chosen ?? options[0]) ? 0 : -1;
    }
}

/**
 * Draw what a question answers into a place of a view, unless another question comes after it; say what went wrong.
 * draw(still, waits): `await still(promise)` ends it once the view asks something else; waits(text) says what it waits for.
 */
export async function answering(view, place, text, draw) {
    const asked = (view.asked = {}), note = h("p", { class: "hint", role: "status" }, text);
    const timer = setTimeout(() => place.prepend(note), 150);
    view.setAttribute("aria-busy", "true");
    const still = async (promise) => {
        const answer = await promise;
        if (view.asked !== asked) throw new DOMException("Something else is looked at.", "AbortError");
        return answer;
    };
    try {
        await draw(still, (text) => (note.textContent = text));
    } catch (error) {
        if (error.name !== "AbortError" && view.asked === asked) fill(place, alarm(error.message));
    }
    clearTimeout(timer);
    note.remove();
    if (view.asked === asked) view.removeAttribute("aria-busy");
}

/** A twin of what changes all the time: made anew while it is open. -> {element, refresh} */
export function lazyTwin(make) {
    const element = twin(make());
    const refresh = () => element.open && fill(element.lastChild, make());
    element.addEventListener("toggle", refresh);
    return { element, refresh };
}

function isNumeric(value) {
    return typeof value === "number" || /^[-+−<>≥]?\s?[\d.,]+\s?%?$/.test(value);
}

/** Arrow keys walk the items, of which one is in the tab order (a roving tabindex). columns: of a grid, else 1. */
export function rove(container, selector, onMove = () => {}, columns = 1) {
    container.addEventListener("keydown", (event) => {
        const items = [...container.querySelectorAll(selector)];
        const at = items.indexOf(document.activeElement);
        if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
        const to = { ArrowRight: at + 1, ArrowDown: at + columns, ArrowLeft: at - 1, ArrowUp: at - columns, Home: 0, End: items.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        const next = items[to];
        if (!next) return;
        for (const item of items) item.tabIndex = item === next ? 0 : -1;
        next.focus();
        onMove(next);
    });
}

/** Whether a key is meant for the page: not for a field, nor for the browser. */
export function forPage({ ctrlKey, metaKey, altKey, target }) {
    return !ctrlKey && !metaKey && !altKey && !target.matches("input, textarea, select") && !document.querySelector("dialog[open]");
}

/** Whether a text shows nothing but that a line ends. */
export function breaks(text) {
    return text?.includes("\n") && !text.trim();
}

/** A token's text where it stands alone: its spaces and line ends are seen. */
export function visible(text) {
    if (text === "") return "∅";
    return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍");
}

/** The same of bytes that may be no text (null). */
export function nameOf(text) {
    return text === null ? "part of a character" : visible(text);
}

/** 3, "token" -> "3 tokens" */
export function many(n, what) {
    return `${count(n)} ${what}${n === 1 ? "" : "s"}`;
}

/** 0.1234 -> "12.3 %". */
export function percent(p) {
    if (p > 0 && p < 0.0001) return "< 0.01 %";
    return `${(100 * p).toFixed(p < 0.01 ? 2 : 1)} %`;
}

/** Bits of surprisal: how many fair coin flips an event of this log-probability is worth. */
export function bits(logprob) {
    return Math.max(0, -logprob / Math.LN2);
}

export function count(n) {
    return n.toLocaleString("en");
}
