// Put into the book's pages by `nano-llama learn --serve`: cells can be changed, and run in the learner's own Python.
// A cell runs after all those above it, as the book runs them; cells that the book only recorded are left out.

const here = new URL("run", document.currentScript.src);
const cells = [...document.querySelectorAll(".cell[data-cell]")].filter((cell) => !cell.querySelector(".recorded"));

function codeOf(cell) {
  return cell.querySelector(".highlight pre");
}

async function run(cell, button) {
  const upTo = cells.slice(0, cells.indexOf(cell) + 1);
  const sent = upTo.map((one) => ({ name: one.dataset.cell, code: codeOf(one).innerText }));
  button.disabled = true;
  button.textContent = "Running ...";
  let result;
  try {
    const answer = await fetch(here, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ cells: sent }),
    });
    result = answer.ok ? await answer.json() : { printed: "", error: await answer.text(), picture: null };
  } catch {
    result = { printed: "", error: "No answer. Is  nano-llama learn --serve  still running?", picture: null };
  }
  show(cell, result);
  button.disabled = false;
  button.textContent = "Run";
}

function show(cell, { printed, error, picture }) {
  cell.querySelectorAll(".printed, .picture").forEach((old) => old.remove());
  if (picture) {
    const image = document.createElement("img");
    image.className = "picture";
    image.alt = "The picture that this cell drew";
    image.style.cssText = "display: block; max-width: 100%; background: white";
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(picture)}`;
    cell.append(image);
  }
  const output = document.createElement("pre");
  output.className = "printed";
  output.setAttribute("role", "status");
  output.textContent = printed + (error ? (printed ? "\n" : "") + error : "") || (picture ? "" : "(nothing printed)");
  if (output.textContent) cell.append(output);
}

for (const cell of cells) {
  const code = codeOf(cell);
  code.contentEditable = "plaintext-only";
  code.spellcheck = false;
  code.setAttribute("role", "textbox");
  code.setAttribute("aria-multiline", "true");
  code.setAttribute("aria-label", `the code of cell ${cell.dataset.cell}`);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Run";
  button.title = "Run this cell after those above it (Ctrl+Enter in its code)";
  button.onclick = () => run(cell, button);
  code.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!button.disabled) run(cell, button);
    }
  });
  code.closest(".highlight").after(button);
}
