"use strict";
/* The runs of a folder: filtered, picked, and as they are now. */
(() => {
  const filter = document.getElementById("filter");
  const body = () => document.querySelector("#table-runs tbody");
  const rows = () => [...(body()?.rows ?? [])];
  const shown = () => rows().filter((row) => !row.hidden);
  const box = (row) => row.querySelector("input[name=run]");

  /** A line is shown where it holds every word, in whatever case. */
  function sift() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    count();
  }

  /** What is hidden stays picked, and is said to be. */
  function count() {
    const picked = rows().filter((row) => box(row).checked).length;
    const state = `${shown().length} of ${rows().length} runs shown, ${picked} picked`;
    document.getElementById("picks-state").textContent = state;
    for (const button of document.querySelectorAll(".picks-do button")) {
      button.disabled = !picked && button.getAttribute("formaction") !== "/claims";
    }
    const all = document.getElementById("pick-all");
    all.checked = shown().length > 0 && shown().every((row) => box(row).checked);
  }

  /** The list as the folder has it now; picks and order stay. */
  async function renew() {
    const answer = await fetch("/");
    if (!answer.ok) return;
    const now = new DOMParser().parseFromString(await answer.text(), "text/html");
    const old = new Map(rows().map((row) => [row.dataset.row, row]));
    for (const row of [...now.querySelectorAll("#table-runs tbody tr")].reverse()) {
      const before = old.get(row.dataset.row);
      old.delete(row.dataset.row);
      const fresh = document.adoptNode(row);
      if (before) {
        box(fresh).checked = box(before).checked;
        before.replaceWith(fresh);
      } else {
        fresh.classList.add("new");
        body().prepend(fresh);
      }
    }
    for (const row of old.values()) row.remove();
    document.querySelector(".lede").textContent = now.querySelector(".lede").textContent;
    sift();
  }

  function changed() {
    if (filter) {
      renew();
      return;
    }
    if (document.getElementById("stale")) return;
    const line = document.createElement("p");
    line.id = "stale";
    line.className = "warning";
    line.setAttribute("role", "status");
    line.textContent = "Runs have come or changed since this page was made: reload it to see them.";
    document.getElementById("main").prepend(line);
  }

  let stamp = null;
  const source = new EventSource("/events");
  source.addEventListener("message", (event) => {
    if (stamp !== null && stamp !== event.data) changed();
    stamp = event.data;
  });
  addEventListener("pagehide", () => source.close());

  if (filter) {
    filter.addEventListener("input", sift);
    document.querySelector(".picks").addEventListener("change", (event) => {
      if (event.target.id === "pick-all") for (const row of shown()) box(row).checked = event.target.checked;
      count();
    });
    sift();
    addEventListener("pageshow", sift); // a browser that comes back to the list restores picks and words later
  }
})();
