"use strict";

const NUMBER = /^[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?/i;
const NOTHING = new Set(["", "-"]);

/* Return the positions of texts in sorted order: by number if every text begins with one, else alphabetically. Empty texts
   are last in both directions, and the sort is stable. */
function order(texts, descending) {
  const filled = texts.filter((text) => !NOTHING.has(text));
  const numeric = filled.every((text) => NUMBER.test(text));
  const compared = (a, b) =>
    numeric ? parseFloat(texts[a]) - parseFloat(texts[b]) : texts[a].localeCompare(texts[b]);
  const blank = (position) => (NOTHING.has(texts[position]) ? 1 : 0);
  return texts
    .map((_, position) => position)
    .sort((a, b) => blank(a) - blank(b) || (blank(a) ? 0 : (descending ? -1 : 1) * compared(a, b)));
}

function sortBy(table, headers, column) {
  const descending = headers[column].getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = rows.map((row) => row.cells[column].textContent.trim());
  body.append(...order(texts, descending).map((position) => rows[position]));
  headers.forEach((header) => header.removeAttribute("aria-sort"));
  headers[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

/* Buttons are reachable by keyboard. */
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, headers, column));
  });
}
