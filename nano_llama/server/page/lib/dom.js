// Elements made by hand. Text enters the page here, as text nodes alone: nothing is ever parsed as HTML.
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

/** A table of texts and numbers. columns: names; a row is a list of texts, numbers or elements. */
export function table(caption, columns, rows, rowProperties = () => ({})) {
    const cell = (value) => h("td", { class: typeof value === "object" ? null : isNumeric(value) && "number" }, value);
    return h("table", {},
        h("caption", {}, caption),
        h("thead", {}, h("tr", {}, columns.map((name, at) => h("th", { scope: "col", class: rows.length > 0 && isNumeric(rows[0][at]) && "number" }, name)))),
        h("tbody", {}, rows.map((row, at) => h("tr", rowProperties(at), row.map(cell)))));
}

/** A picture's twin: the same numbers, folded away. */
export function twin(made) {
    const scroller = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": made.caption.textContent }, made);
    return h("details", { class: "twin" }, h("summary", {}, "The same as a table"), scroller);
}

/** A twin of what changes all the time: made anew while it is open. -> {element, refresh} */
export function lazyTwin(make) {
    const element = twin(make()), scroller = element.lastChild;
    const refresh = () => element.open && scroller.replaceChildren(make());
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
