// The lines of Volume 1 that a replay runs, beside what they computed. Tests: tests/page/test_volumes.py.

import { ask } from "./api.js";
import { h } from "./dom.js";

const SAID = /("""[\s\S]*?"""|#.*)/; // what a function says to its reader
let known = null; // GET /inspect/source, asked for once

/** names: stages of /inspect/source, in the order to show. Folded away; fetched when it is opened. */
export function source(names, title = "The lines of Volume 1 that computed this") {
    const made = h("details", { class: "source" }, h("summary", {}, title));
    made.addEventListener("toggle", async () => {
        if (!made.open || made.children.length > 1) return;
        try {
            const stages = await (known ??= ask("/inspect/source").then((answer) => answer.stages));
            made.replaceChildren(made.firstChild, ...names.map((name) => lines(stages.find((stage) => stage.name === name))));
        } catch (error) {
            known = null;
            made.replaceChildren(made.firstChild, h("p", { class: "error", role: "alert" }, error.message));
        }
    });
    return made;
}

function lines({ name, function: title, file, line, code }) {
    return h("figure", { "data-stage": name },
        h("figcaption", {}, h("code", {}, `${file}, line ${line}`)),
        h("pre", { tabindex: 0, role: "region", "aria-label": title }, code.split(SAID).map((part, at) => (at % 2 ? h("span", {}, part) : part))));
}
