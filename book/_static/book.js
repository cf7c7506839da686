// A book without scripts is whole. With them, a trace is clicked through step by step, and boxes that scroll sideways
// can be reached by keyboard.

function makeStepper(trace) {
  const steps = [...trace.querySelectorAll("li")];
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.innerHTML =
    '<button type="button">Back</button><input type="range" min="0"><button type="button">Next</button><output></output>';
  const [back, slider, next, place] = controls.children;
  slider.max = steps.length - 1;
  slider.setAttribute("aria-label", "step");

  function show(at) {
    steps.forEach((step, index) => { step.hidden = index !== at; });
    slider.value = at;
    place.textContent = `${at + 1} / ${steps.length}`;
    back.disabled = at === 0;
    next.disabled = at === steps.length - 1;
  }
  back.onclick = () => show(Number(slider.value) - 1);
  next.onclick = () => show(Number(slider.value) + 1);
  slider.oninput = () => show(Number(slider.value));
  trace.querySelector("ol").setAttribute("aria-live", "polite");
  trace.classList.add("live");
  trace.append(controls);
  show(0);
}

function reachByKeyboard() {
  for (const box of document.querySelectorAll("pre, .formula, .table-wrapper")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

document.querySelectorAll(".trace").forEach(makeStepper);
reachByKeyboard();
addEventListener("resize", reachByKeyboard);
document.addEventListener("toggle", reachByKeyboard, true);
