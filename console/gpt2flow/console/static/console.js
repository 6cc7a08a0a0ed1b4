// Times in the reader's zone, and buttons that a change of the case disables.
"use strict";

function showLocalTimes(root) {
  const format = new Intl.DateTimeFormat(document.documentElement.lang, {
    dateStyle: "medium",
    timeStyle: "short",
  });
  for (const each of root.querySelectorAll("time[datetime]")) {
    each.title = each.textContent;
    each.textContent = format.format(new Date(each.dateTime));
  }
}

// A decision holds for the case as it was shown; what was typed stays to be copied.
function disableDecisions() {
  for (const button of document.querySelectorAll("form[data-binding] button")) {
    button.disabled = true;
  }
}

document.addEventListener("DOMContentLoaded", () => showLocalTimes(document));
document.addEventListener("htmx:afterSwap", () => {
  showLocalTimes(document);
  if (document.querySelector("[data-changed]")) {
    disableDecisions();
  }
});
// The likeliest tokens in the place of the one that is pointed at.
function showTop(event) {
  const token = event.target.closest?.("[data-top]");
  const place = document.getElementById("token-top");
  if (!token || !place) {
    return;
  }
  place.replaceChildren();
  for (const [text, probability] of JSON.parse(token.dataset.top)) {
    const line = document.createElement("div");
    line.textContent = `${JSON.stringify(text)} ${(100 * probability).toFixed(1)} %`;
    place.append(line);
  }
}
document.addEventListener("mouseover", showTop);
document.addEventListener("focusin", showTop);
// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("button")) {
    setTimeout(() => { button.disabled = true; });
  }
});
