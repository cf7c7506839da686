// Attention drawn: arcs from a token to those that it reads, and a head's weights as a small picture.
// Tests: tests/page/test_replayed.py.

import { s } from "./dom.js";

const LEAST = 0.01; // a weight below it has no arc
const WIDEST = 7; // px: all of a head's attention
const SHADE = [58, 143, 192]; // seen on the light and on the dark ground

/**
 * Arcs over tokens that stand in lines. options: their elements; lines: per head {weights: (to) => number, tone, strong}.
 * An arc is as thick as the root of its weight, so that small ones are seen.
 */
export function arcs(options, from, lines) {
    const place = (option) => ({ x: option.offsetLeft + option.offsetWidth / 2, top: option.offsetTop, end: option.offsetTop + option.offsetHeight });
    const reader = place(options[from]), all = options.slice(0, from + 1).map(place);
    return lines.map(({ weights, tone, strong }, n) => {
        const shift = 3 * (n - (lines.length - 1) / 2);
        const paths = all.map((read, to) => {
            const weight = weights(to);
            if (weight < LEAST) return null;
            const width = Math.max(1, WIDEST * Math.sqrt(weight)) * (strong ? 1 : 0.6);
            return s("path", { d: curve(reader, read, shift), "stroke-width": width.toFixed(2), opacity: (0.25 + 0.75 * weight).toFixed(3), "data-to": to, "data-weight": weight });
        });
        return s("g", { class: `${tone}${strong ? " strong" : ""}` }, paths.filter(Boolean));
    });
}

function curve(reader, read, shift) {
    const from = reader.x + shift, to = read.x + shift;
    if (read.top < reader.top) return `M${from} ${reader.top} C${from} ${reader.top - 26} ${to} ${read.end + 26} ${to} ${read.end}`;
    const rise = reader.top - Math.min(24, 10 + Math.abs(from - to) / 8);
    if (reader === read || from === to) return `M${from - 5} ${reader.top} C${from - 9} ${rise - 6} ${from + 9} ${rise - 6} ${from + 5} ${reader.top}`;
    return `M${from} ${reader.top} C${from} ${rise} ${to} ${rise} ${to} ${reader.top}`;
}

/** Draw T x T weights, readers as rows: darker for more. at: (from, to) => the weight */
export function paint(canvas, T, at) {
    canvas.width = canvas.height = T;
    const context = canvas.getContext("2d"), image = context.createImageData(T, T);
    for (let from = 0; from < T; from++) {
        for (let to = 0; to <= from; to++) image.data.set([...SHADE, 255 * Math.sqrt(at(from, to))], 4 * (from * T + to));
    }
    context.putImageData(image, 0, 0);
    return canvas;
}
