// Chips fill the box, Escape stops a run or its attacks, leaving while something runs asks first, the stage goes through the timeline, the slider of the comparison through the attack, small pictures keep hard pixels; delegated, because Gradio replaces the elements it renders.
document.addEventListener("load", (event) => {
  const image = event.target;
  if (image.tagName === "IMG" && image.naturalWidth <= 128) image.style.imageRendering = "pixelated";
}, true);
document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-concept]");
  if (!chip) return;
  const box = document.querySelector(`#${chip.dataset.box ?? "concept"} :is(textarea, input)`);
  if (!box || box.disabled) return;
  const kind = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, chip.dataset.concept);
  box.dispatchEvent(new Event("input", { bubbles: true }));
  box.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const stop of document.querySelectorAll("#stop, #quit"))
    if (stop.offsetParent !== null && !stop.disabled) stop.click();
});
document.addEventListener("input", (event) => {
  const scrub = event.target.closest(".u-scrub");
  if (!scrub) return;
  const step = scrub.dataset.steps.split(",")[event.target.value];
  scrub.querySelector("output").textContent = step;
  event.target.setAttribute("aria-valuetext", `${step} attack steps`);
  for (const figure of scrub.parentElement.querySelectorAll("figure[data-step]"))
    figure.hidden = figure.dataset.step !== step;
});
// The page reloads itself after a lost connection, which needs no question.
window.addEventListener("beforeunload", (event) => {
  const lost = [...document.querySelectorAll(".toast-body")].some((toast) => /Connection Lost/i.test(toast.textContent));
  if (document.querySelector("#stop, #quit, #halt") && !lost) event.preventDefault();
});

// The stage: which prompt is large, and where the handle is. `at` is null while it follows the newest moment.
const shown = { run: null, slot: 0, at: null, halves: false, timer: 0, focus: null };
const BEAT = 900;
const read = (element, name) => JSON.parse(element.dataset[name]);
function draw(root) {
  const moments = read(root, "moments"), picks = [...root.querySelectorAll(".u-pick")];
  const at = Math.min(shown.at ?? moments.length - 1, moments.length - 1), moment = moments[at];
  const slot = Math.min(shown.slot, picks.length - 1), large = picks[slot], frames = read(large, "frames");
  const say = (frame, title) => `${large.dataset.prompt}: ${title}${frame.seen ? `; the judge sees ${frame.seen}` : ""}`;
  const now = root.querySelector(".u-now"), before = root.querySelector(".u-before"), split = root.querySelector(".u-split");
  now.src = frames[at].src;
  now.alt = say(frames[at], moment.title);
  before.src = frames[0].src;
  before.alt = say(frames[0], moments[0].title);
  before.hidden = split.hidden = !shown.halves;
  before.style.clipPath = `inset(0 ${100 - split.value}% 0 0)`;
  root.querySelector(".u-frame").style.setProperty("--split", shown.halves ? `${split.value}%` : "-9px");
  root.querySelector(".u-large figcaption span").textContent = large.dataset.prompt;
  for (const part of root.querySelectorAll(".u-large, .u-figures")) part.className = `${part.className.split(" ")[0]} u-${moment.phase}`;
  root.querySelector(".u-figures h3").textContent = moment.title;
  root.querySelector(".u-count strong").textContent = moment.count || "–";
  root.querySelector(".u-interval").textContent = moment.interval;
  root.querySelector(".u-control").textContent = moment.controls.join(" · ");
  picks.forEach((pick, place) => {
    pick.setAttribute("aria-pressed", place === slot);
    pick.querySelector("img").src = read(pick, "frames")[at].src;
  });
  root.querySelectorAll(".u-tick").forEach((tick, place) => {
    tick.toggleAttribute("data-on", place === at);
    tick.querySelector("img").src = frames[place].src;
  });
  const handle = root.querySelector(".u-handle");
  handle.value = at;
  handle.setAttribute("aria-valuetext", moment.title + (moment.count ? `: ${moment.count} pictures show it` : ""));
  root.querySelector(".u-halves").setAttribute("aria-pressed", shown.halves);
  const play = root.querySelector(".u-play");
  play.setAttribute("aria-pressed", shown.timer !== 0);
  play.querySelector("b").textContent = shown.timer ? "Pause" : "Play";
  play.querySelector("span").textContent = shown.timer ? "❚❚" : "▶";
  for (const button of document.querySelectorAll(".u-milestone")) button.classList.toggle("u-here", Number(button.dataset.moment) === at);
}
function theStage() {
  return document.querySelector(".u-stage[data-moments]");
}
function move(at, root = theStage()) {
  const last = read(root, "moments").length - 1;
  shown.at = at >= last ? null : Math.max(0, at);
  draw(root);
}
function pause() {
  clearInterval(shown.timer);
  shown.timer = 0;
}
function play() {
  const root = theStage(), last = Number(root.querySelector(".u-handle").max);
  if ((shown.at ?? last) >= last) move(0);
  shown.timer = setInterval(() => {
    const root = theStage();
    if (!root) return pause();
    const at = Number(root.querySelector(".u-handle").value) + 1, last = Number(root.querySelector(".u-handle").max);
    if (at >= last) pause();
    move(at, root);
  }, BEAT);
  draw(root);
}
document.addEventListener("input", (event) => {
  const root = event.target.closest(".u-stage");
  if (!root) return;
  if (event.target.matches(".u-handle")) {
    pause();
    move(Number(event.target.value), root);
  } else draw(root);
});
document.addEventListener("click", (event) => {
  const part = event.target.closest(".u-pick, .u-tick, .u-play, .u-halves, .u-milestone"), root = theStage();
  if (!part || !root) return;
  if (part.matches(".u-play")) shown.timer ? (pause(), draw(root)) : play();
  else if (part.matches(".u-pick")) {
    shown.slot = [...root.querySelectorAll(".u-pick")].indexOf(part);
    draw(root);
  } else if (part.matches(".u-halves")) {
    shown.halves = !shown.halves;
    draw(root);
  } else {
    pause();
    move(Number(part.dataset.at ?? part.dataset.moment), root);
  }
});
document.addEventListener("focusin", (event) => {
  const root = event.target.closest(".u-stage"), kind = root && `.${event.target.className.split(" ")[0]}`;
  shown.focus = kind ? { kind, place: [...root.querySelectorAll(kind)].indexOf(event.target) } : null;
});
// Gradio replaces the stage with every new picture: keep what the visitor has chosen, and where the focus was.
new MutationObserver(() => {
  const root = document.querySelector(".u-stage[data-moments]:not([data-drawn])");
  if (!root) return;
  root.dataset.drawn = "";
  if (root.dataset.run !== shown.run) {
    pause();
    Object.assign(shown, { run: root.dataset.run, slot: 0, at: null, halves: false });
  }
  draw(root);
  if (shown.focus && document.activeElement === document.body) root.querySelectorAll(shown.focus.kind)[shown.focus.place]?.focus();
  for (const pick of root.querySelectorAll(".u-pick")) for (const frame of read(pick, "frames")) new Image().src = frame.src;
}).observe(document, { childList: true, subtree: true });

// An error about a field brings it into view, once its fold is open.
function bring(id, tries = 100) {
  const field = document.querySelector(`#${id} :is(input, textarea)`);
  if (field?.offsetParent) {
    field.scrollIntoView({ block: "center" });
    field.focus();
  } else if (tries) setTimeout(bring, 100, id, tries - 1);
}
new MutationObserver(() => {
  const alert = document.querySelector("#hint [data-field]:not([data-seen])");
  if (!alert) return;
  alert.dataset.seen = "";
  if (alert.dataset.field !== "concept" && !document.activeElement?.matches("input, textarea")) bring(alert.dataset.field);
}).observe(document, { childList: true, subtree: true });
// The message may stand there already, from when the value was typed.
document.addEventListener("click", (event) => {
  if (event.target.closest("#run")) setTimeout(() => {
    const field = document.querySelector("#hint [data-field]")?.dataset.field;
    if (field && field !== "concept") bring(field);
  }, 400);
});
// The search of the expert settings hides what does not hold all of its words.
document.addEventListener("input", (event) => {
  if (event.target.id !== "find-setting") return;
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const group of document.querySelectorAll("#expert .u-settings")) {
    const title = group.querySelector("h4").textContent;
    let any = false;
    for (const field of group.querySelectorAll(".block[id]")) {
      const text = `${title} ${field.textContent} ${field.id}`.toLowerCase();
      const found = words.every((word) => text.includes(word));
      field.classList.toggle("u-out", !found);
      any ||= found;
    }
    group.classList.toggle("u-out", !any);
  }
});

// One live region for the whole visit says what the page shows in elements marked data-say, which Gradio replaces.
const live = document.createElement("div");
live.id = "u-live";
live.className = "u-hidden";
live.setAttribute("role", "status");
const said = { arrived: false, text: "", focus: null };
function speak() {
  if (!live.isConnected) document.body.append(live);
  const parts = [...document.querySelectorAll("[data-say]")].filter((part) => part.offsetParent !== null);
  const text = parts.map((part) => part.innerText.replace(/\s+/g, " ").trim()).join(". ");
  if (text === said.text) return;
  if (said.arrived) live.textContent = text;
  said.text = text;
  said.arrived = true;
}
// Run and Stop replace each other: the focus stays on whichever is there.
document.addEventListener("focusin", (event) => {
  said.focus = event.target.closest("#run, #stop, #concept, #go, #quit, #add, #halt, #next")?.id ?? null;
});
document.addEventListener("pointerdown", () => { said.focus = null; }, true);
const TURNS = { run: "stop", concept: "stop", stop: "run", go: "quit", quit: "go", add: "halt", next: "halt", halt: "add" };
function keepFocus() {
  if (document.activeElement !== document.body || !said.focus) return;
  const own = document.getElementById(said.focus), other = document.getElementById(TURNS[said.focus]);
  const there = (element) => element?.offsetParent && !element.disabled;
  if (there(other)) other.focus();
  else if (own?.tagName === "BUTTON" && there(own)) own.focus();
}
function sayWhatIsOpen() {
  for (const fold of document.querySelectorAll("button.label-wrap")) {
    const open = String(fold.classList.contains("open"));
    if (fold.getAttribute("aria-expanded") !== open) fold.setAttribute("aria-expanded", open);
  }
}
// Charts are told in words and tables below them.
function hideCharts() {
  for (const chart of document.querySelectorAll(".vega-embed svg:not([aria-hidden])")) chart.setAttribute("aria-hidden", "true");
}
new MutationObserver(() => {
  speak();
  hideCharts();
  keepFocus();
  sayWhatIsOpen();
}).observe(document, { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["class", "disabled"] });
