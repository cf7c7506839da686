// The page's entry: says which model is served. Tests: tests/server/page.

const answer = await fetch("inspect/model");
const body = await answer.json();
document.getElementById("model").textContent = answer.ok ? body.model : body.error.message;
