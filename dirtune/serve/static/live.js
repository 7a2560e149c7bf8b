"use strict";

const SECONDS = 3;

/* Fill an element with what its address answers, again and again while the page is visible. */
function follow(element, state) {
  let shown = "";
  const refresh = async () => {
    if (!document.hidden) {
      let problem = "";
      try {
        const answer = await fetch(element.dataset.live);
        const text = await answer.text();
        if (!answer.ok) problem = "The results cannot be read now.";
        else if (text !== shown) element.innerHTML = shown = text;
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
