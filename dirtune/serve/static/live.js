"use strict";

const SECONDS = 3;

/* Fill an element with a text of HTML; a link in it that has the focus keeps it. */
function fill(element, text) {
  const link = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  element.innerHTML = text;
  if (link) [...element.querySelectorAll("a")].find((each) => each.getAttribute("href") === link)?.focus();
}

/* Fill an element with what its address answers, again and again while the page is visible. */
function follow(element, state) {
  let shown = "";
  const refresh = async () => {
    if (!document.hidden) {
      let problem = "";
      try {
        const answer = await fetch(element.dataset.live);
        const text = await answer.text();
        if (answer.status === 403) problem = "The server has been started again: open the address that it has printed.";
        else if (!answer.ok) problem = "The results cannot be read now; what is shown is old.";
        else if (text !== shown) fill(element, (shown = text));
      } catch {
        problem = "The server does not answer; what is shown is old.";
      }
      /* Screen readers read this out when it changes. */
      if (state.textContent !== problem) state.textContent = problem;
    }
    setTimeout(refresh, 1000 * SECONDS);
  };
  setTimeout(refresh, 1000 * SECONDS);
}

for (const element of document.querySelectorAll("[data-live]")) {
  follow(element, document.getElementById("connection"));
}
