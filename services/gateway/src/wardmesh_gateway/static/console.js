// The compliance console: live rows, keys, and nothing else. Every page works without this file.

const KEPT_ROWS = 300;

const live = document.getElementById("live");
const state = document.getElementById("state");
const pause = document.getElementById("pause");
const rows = document.getElementById("rows");

function say(text) {
  if (state) state.textContent = text;
}

function follow(address) {
  let source = null;
  let held = [];
  let seen = 0;

  function show(html) {
    rows.insertAdjacentHTML("afterbegin", html);
    rows.firstElementChild.classList.add("new");
    while (rows.childElementCount > KEPT_ROWS) rows.lastElementChild.remove();
    seen += 1;
  }

  function paused() {
    return pause.getAttribute("aria-pressed") === "true";
  }

  function tell() {
    say(paused() ? `Paused, ${held.length} waiting` : `Live, ${seen} new`);
  }

  pause.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!paused()));
    pause.textContent = paused() ? "Go on" : "Pause";
    if (!paused()) {
      held.forEach(show);
      held = [];
    }
    tell();
  });

  source = new EventSource(address);
  source.addEventListener("open", tell);
  source.addEventListener("row", (event) => {
    if (paused()) held.push(event.data);
    else show(event.data);
    tell();
  });
  source.addEventListener("problem", (event) => {
    say(`Stopped: ${JSON.parse(event.data).detail}`);
    source.close();
  });
  // The browser comes back by itself and says with Last-Event-ID where it was.
  source.addEventListener("error", () => {
    say(source.readyState === EventSource.CLOSED ? "Stopped. Load the page again." : "Connecting again");
  });
}

function step(direction) {
  const links = [...document.querySelectorAll("tbody tr a:first-child, .timeline li .when a, .review h2")];
  const here = links.findIndex((each) => each.closest("tr, li, article")?.contains(document.activeElement));
  const next = links[Math.min(Math.max(here + direction, 0), links.length - 1)];
  if (next) {
    if (next.tagName === "H2") next.tabIndex = -1;
    next.focus();
  }
}

// j and k walk through rows, p pauses, / goes to the first filter; never while somebody types.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "p" && pause) pause.click();
  else if (event.key === "/") {
    const field = document.querySelector("form input:not([type=hidden]), form select");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  }
});

// An empty filter says nothing: it need not stand in the address.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) {
    if (field.name && field.value === "") field.disabled = true;
  }
});

if (live && rows) follow(live.dataset.stream);
