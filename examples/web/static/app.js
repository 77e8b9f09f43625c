// Without this file the page works by plain forms; with it, it counts along.
"use strict";

const count = document.getElementById("count");
const note = document.getElementById("note");
const counting = document.getElementById("counting");

new EventSource(counting.action).addEventListener("message", (event) => {
  count.textContent = event.data;
});

function told(answer) {
  if (answer.status === 429) {
    return `Too many clicks: again in ${answer.headers.get("Retry-After")} s.`;
  }
  return answer.type === "opaqueredirect" ? "" : `Not counted: status ${answer.status}.`;
}

counting.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    // The new count comes by the stream, as to every other window.
    const answer = await fetch(counting.action, { method: "POST", redirect: "manual" });
    note.textContent = told(answer);
  } catch {
    note.textContent = "The server cannot be reached.";
  }
});
