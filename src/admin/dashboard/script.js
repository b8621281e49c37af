"use strict";

// Asks for the panels again and again, and puts in what has changed. What the reader is in stays as it is.
// The purge form sends what `sentrybox purge` sends: JSON, to this host alone.

const EVERY = 2000;
// Without the name and password that the page's own address may have: browsers refuse to ask for such a URL.
const here = location.origin;
const live = document.getElementById("live");
const trouble = document.getElementById("trouble");
const freshness = document.getElementById("freshness");
const range = document.body.dataset.range;

function complain(text) {
  if (trouble.textContent !== text) {
    trouble.textContent = text;
  }
  trouble.hidden = text === "";
}

function isInUse(element) {
  const marked = getSelection();
  return element.contains(document.activeElement) || (!marked.isCollapsed && marked.containsNode(element, true));
}

function replacePanels(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const section of fresh.querySelectorAll("section[id]")) {
    const shown = document.getElementById(section.id)?.querySelector(".inside");
    const inside = section.querySelector(".inside");
    if (shown && shown.innerHTML !== inside.innerHTML && !isInUse(shown)) {
      shown.replaceChildren(...inside.childNodes);
    }
  }
}

async function update() {
  try {
    const answer = await fetch(`${here}/dashboard/panels?range=${range}`, { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) {
      throw new Error(`sentrybox answers ${answer.status}`);
    }
    replacePanels(await answer.text());
    freshness.textContent = `live, ${new Date().toLocaleTimeString()}`;
    complain("");
  } catch (error) {
    complain(`What you see is not live: ${error.message}.`);
  }
}

async function updateForEver() {
  if (document.visibilityState === "visible") {
    await update();
  }
  setTimeout(updateForEver, EVERY);
}

const form = document.getElementById("purge");
const kind = document.getElementById("purge-kind");
const subject = document.getElementById("purge-name");
const mode = document.getElementById("purge-mode");
const result = document.getElementById("purge-result");

function order() {
  const about = kind.value === "everything" ? { everything: true } : { [kind.value]: subject.value.trim() };
  return { ...about, mode: mode.value };
}

async function purge(event) {
  event.preventDefault();
  if (kind.value === "everything" && !confirm("Purge everything, of every credential?")) {
    return;
  }
  result.textContent = "…";
  try {
    const answer = await fetch(`${here}/purge`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(order()),
    });
    const report = await answer.json();
    const done = mode.value === "hard" ? "dropped" : "marked stale";
    result.textContent = answer.ok ? `${report.responses} stored responses ${done}` : report.detail;
    await update();
  } catch (error) {
    result.textContent = `Nothing came back: ${error.message}. It may have been purged all the same.`;
  }
}

function showNameWhereItCounts() {
  subject.disabled = kind.value === "everything";
  subject.required = !subject.disabled;
}

kind.addEventListener("change", showNameWhereItCounts);
form.addEventListener("submit", purge);
document.addEventListener("visibilitychange", update);
showNameWhereItCounts();
setTimeout(updateForEver, EVERY);
