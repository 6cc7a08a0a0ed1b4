// The chat box without a reload of the page; without this script, its form does the same.
"use strict";

const REFRESH_MILLISECONDS = 4000;

async function showSaid() {
  const answer = await fetch("/chat");
  if (!answer.ok) {
    return;
  }
  const shown = document.getElementById("said");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const said = page.getElementById("said");
  if (said && said.textContent !== shown.textContent) {
    shown.replaceChildren(...said.childNodes);
    shown.scrollTop = shown.scrollHeight;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("chat");
  if (!box) {
    return;
  }
  setInterval(() => {
    if (box.open && !document.hidden) {
      showSaid().catch(() => {});
    }
  }, REFRESH_MILLISECONDS);
});
