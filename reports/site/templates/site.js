// Sorting and filtering; every number is there without it.
"use strict";

function value(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  return cell.classList.contains("text") || cell.matches("th:not([data-v])") ? cell.textContent.trim() : null;
}

function compare(a, b) {
  if (a === null || b === null) return 0;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

// Rows without a number, and averages, stay last.
function sort(table, column, way) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].map((row) => ({ row, value: value(row, column) }));
    const last = (item) => (item.row.classList.contains("average") ? 2 : item.value === null ? 1 : 0);
    rows.sort((a, b) => last(a) - last(b) || way * compare(a.value, b.value));
    body.append(...rows.map((item) => item.row));
  }
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("fixed")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.classList.contains("text") ? "ascending" : "descending";
      const now = before ? (before === "ascending" ? "descending" : "ascending") : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", now);
      sort(table, column, now === "ascending" ? 1 : -1);
    });
  });
}

function filter(form) {
  const chosen = Object.fromEntries(new FormData(form));
  const fits = (wanted, words) => !wanted || words.includes(wanted);
  let shown = 0;
  const boards = document.querySelectorAll(".board");
  const jumps = document.querySelectorAll(".jump li");
  boards.forEach((board, place) => {
    let groups = 0;
    for (const group of board.querySelectorAll(".group")) {
      group.hidden = !fits(chosen.family, group.dataset.family.split(" "));
      groups += !group.hidden;
    }
    board.hidden = !groups || !fits(chosen.profile, [board.dataset.profile]) || !fits(chosen.source, [board.dataset.source]);
    if (jumps[place]) jumps[place].hidden = board.hidden;
    shown += !board.hidden;
  });
  document.getElementById("count").textContent = `${shown} of ${boards.length} boards`;
}

document.querySelectorAll("table.sortable").forEach(sortable);
const form = document.getElementById("filters");
if (form) {
  form.hidden = false;
  form.addEventListener("change", () => filter(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(form);
}
