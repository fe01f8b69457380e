// Present mode: the run of the stage on the whole screen, told in beats. Everything it shows is read from the stage and the verdict, so that recorded runs and a visitor's own are told alike.
const TICK = 700, IDLE = 60, HOLD = { original: 4, forgetting: 4, attacked: 4, verdict: 11 };
// `at` is the moment on screen and `to` the one that is played to; `auto` says what goes on by itself: "", "replay" or "loop".
const talk = { root: null, at: 0, to: 0, verdict: false, auto: "", hold: 0, clock: 0, touched: 0, following: false, full: false, card: 0, round: null };
const still = matchMedia("(prefers-reduced-motion: reduce)");
const asked = new URLSearchParams(location.search);
const KEYS = [["next", "Next", "Space"], ["back", "←", ""], ["on", "→", ""], ["replay", "Replay", "R"], ["blind", "Vote", "V"], ["blank", "Blank", "B"], ["leave", "Leave", "Esc"]];
const BEATS = { original: "Original", forgetting: "Forgetting", attacked: "Attack", verdict: "Verdict" };
const HEADS = { original: "The original model", forgetting: "It is made to forget", attacked: "An attacker teaches it back" };

function tale() {
  const root = theStage(), status = document.querySelector("#status .u-verdict");
  if (!root) return null;
  const moments = read(root, "moments");
  const picks = [...root.querySelectorAll(".u-pick")].map((pick) => ({ prompt: pick.dataset.prompt, note: pick.innerText.trim(), frames: read(pick, "frames") }));
  const phase = (moment) => (moment.phase === "forgotten" ? "forgetting" : moment.phase);
  const ends = ["original", "forgetting", "attacked"].map((name) => moments.findLastIndex((moment) => phase(moment) === name)).filter((end) => end >= 0);
  return { run: root.dataset.run, concept: root.dataset.about, moments, picks, ends, phase, status };
}
function presenting() {
  return talk.root !== null;
}
function going() {
  return document.querySelector("#status .u-running") !== null;
}
function beat(story) {
  return talk.verdict ? "verdict" : story.phase(story.moments[talk.at]);
}
function element(kind, className, text = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
function figure(src, alt, text, note = "") {
  const made = element("figure"), image = element("img"), caption = element("figcaption", "", text);
  image.src = src;
  image.alt = alt;
  if (note) caption.append(" ", element("small", "", note));
  made.append(image, caption);
  return made;
}
// The three pictures of a beat: two prompts that ask for it and one that should stay, or, for the verdict, one prompt at three moments.
function figures(story) {
  if (!talk.verdict) {
    const { title } = story.moments[talk.at];
    return story.picks.slice(0, 3).map((pick) => figure(pick.frames[talk.at].src, `${pick.prompt}: ${title}`, pick.prompt, pick.note.startsWith("to keep") ? "should stay" : ""));
  }
  const names = { original: "Before", forgetting: "After forgetting", attacked: "After the attack" };
  return story.ends.map((end) => {
    const moment = story.moments[end], name = names[story.phase(moment)], pick = story.picks[0];
    const made = figure(pick.frames[end].src, `${pick.prompt}: ${moment.title}`, name);
    if (moment.count) made.querySelector("figcaption").append(" ", element("b", "", moment.count));
    made.className = `u-${moment.phase}`;
    return made;
  });
}
function tell() {
  const story = tale(), { root } = talk;
  if (!root || !story) return;
  if (talk.round) return showRound(story);
  const last = story.moments.length - 1, over = story.status !== null;
  talk.following &&= !over;
  if (talk.following) talk.at = talk.to = last;
  talk.at = Math.min(talk.at, last);
  talk.to = Math.min(Math.max(talk.to, talk.at), last);
  talk.verdict &&= over;
  const now = beat(story), moment = story.moments[talk.at];
  root.className = `u-${talk.verdict ? story.status.dataset.label : moment.phase} u-beat-${now}`;
  const recorded = over && !story.status.querySelector(".u-live");
  const running = document.querySelector("#status .u-running [data-say]");
  root.querySelector(".u-what").textContent = `Forget “${story.concept}”${recorded ? " · recorded" : ""}`;
  for (const item of root.querySelectorAll("li")) item.toggleAttribute("data-on", item.dataset.beat === now);
  root.querySelector("h2").textContent = talk.verdict ? story.status.querySelector("h2").textContent : HEADS[now];
  const told = talk.verdict ? story.status.querySelector(".u-says").textContent : moment.controls.join(" · ");
  const count = talk.verdict || !moment.count ? "" : `${moment.count} pictures show ${story.concept}`;
  const step = talk.verdict || now === "original" ? "" : moment.title;
  root.querySelector(".u-tally").textContent = [step, count].filter(Boolean).join(": ");
  root.querySelector(".u-told").textContent = running && talk.at === last ? running.textContent : told;
  nameNext("Next");
  put(figures(story));
  const track = root.querySelector("input");
  track.max = last;
  track.value = talk.at;
  track.setAttribute("aria-valuetext", moment.title);
}
function nameNext(text) {
  talk.root.querySelector("[data-does=next]").firstChild.data = text;
}
// Pictures that are there already are not loaded again.
function put(made) {
  const pictures = talk.root.querySelector(".u-pictures");
  const same = pictures.children.length === made.length && made.every((one, place) => one.isEqualNode(pictures.children[place]));
  if (!same) pictures.replaceChildren(...made);
}
function next() {
  if (talk.round) return turnRound();
  const story = tale();
  if (!story || talk.verdict) return;
  talk.following = false;
  if (talk.at < talk.to) talk.at = talk.to;
  else {
    const to = story.ends.find((end) => end > talk.at);
    if (to === undefined) talk.verdict = story.status !== null;
    else {
      talk.to = to;
      talk.at = still.matches ? to : talk.at + 1;
    }
  }
  tell();
}
function beatBack() {
  const story = tale();
  if (!story) return;
  talk.following = false;
  talk.round = null;
  if (!talk.verdict) talk.at = story.ends.findLast((end) => end < talk.at) ?? 0;
  talk.to = talk.at;
  talk.verdict = false;
  tell();
}
function scrub(at) {
  talk.round = null;
  talk.verdict = talk.following = false;
  talk.at = talk.to = Math.max(0, at);
  tell();
}
function replay(auto = "replay") {
  scrub(0);
  talk.auto = still.matches ? "" : auto;
  talk.hold = HOLD.original;
}
// The next recorded run of a booth; the page itself refuses while a run of the visitor is going on.
function another() {
  const cards = [...document.querySelectorAll("#cards [data-recorded]")];
  if (cards.length > 1) cards[++talk.card % cards.length].click();
  replay("loop");
}
function tick() {
  const story = tale();
  if (!story || talk.round) return;
  if (going() || talk.root.hasAttribute("data-blank")) talk.touched = performance.now();
  if (!talk.auto && !still.matches && performance.now() - talk.touched > 1000 * (Number(asked.get("idle")) || IDLE)) replay("loop");
  if (talk.at < talk.to) {
    talk.at += 1;
    tell();
    if (talk.at === talk.to) talk.hold = HOLD[beat(story)];
  } else if (talk.auto && talk.hold > 0) talk.hold -= 1;
  else if (talk.auto && talk.verdict) {
    if (talk.auto === "loop") another();
    else talk.auto = "";
  } else if (talk.auto) {
    next();
    talk.hold = HOLD[beat(story)];
    if (!talk.verdict && talk.at === story.moments.length - 1 && !story.status) talk.auto = "";
  }
}
function blank(on) {
  talk.root.toggleAttribute("data-blank", on ?? !talk.root.hasAttribute("data-blank"));
}
const DOES = { next, back: () => scrub(talk.verdict ? talk.at : talk.at - 1), on: () => talk.verdict || scrub(talk.at + 1), replay: () => replay(), blind: () => beginRound(), blank: () => blank(), leave };
function act(name) {
  talk.auto = "";
  if (name !== "blank") blank(false);
  DOES[name]();
}
function touched() {
  talk.touched = performance.now();
  if (talk.auto === "loop") talk.auto = "";
}
function enter() {
  if (presenting() || !theStage()) return;
  const root = element("div");
  root.id = "u-present";
  root.tabIndex = -1;
  root.setAttribute("role", "dialog");
  root.setAttribute("aria-modal", "true");
  root.setAttribute("aria-label", "Presentation");
  const head = element("header"), beats = element("ol"), keys = element("footer");
  for (const [name, text] of Object.entries(BEATS)) {
    const item = element("li", "", text);
    item.dataset.beat = name;
    beats.append(item);
  }
  head.append(element("p", "u-what"), beats);
  const track = element("input");
  Object.assign(track, { type: "range", min: 0, step: 1 });
  track.setAttribute("aria-label", "Timeline");
  for (const [name, text, key] of KEYS) {
    const button = element("button", "", text);
    button.type = "button";
    button.dataset.does = name;
    if (name === "back" || name === "on") button.setAttribute("aria-label", name === "back" ? "One picture back" : "One picture on");
    if (key) button.append(" ", element("kbd", "", key));
    keys.append(button);
  }
  root.append(head, element("h2"), element("div", "u-pictures"), element("p", "u-tally"), element("p", "u-told"), element("div", "u-poll"), track, keys);
  document.body.append(root);
  Object.assign(talk, { root, at: 0, to: 0, verdict: false, auto: "", hold: 0, round: null, following: going(), touched: performance.now(), clock: setInterval(tick, TICK) });
  pause();
  draw(theStage());
  for (const other of document.body.children) if (other !== root && other !== live) other.inert = true;
  document.documentElement.style.overflow = "hidden";
  remember(true);
  root.focus();
  tell();
}
function leave() {
  clearInterval(talk.clock);
  talk.root.remove();
  Object.assign(talk, { root: null, full: false, round: null });
  for (const other of document.body.children) other.inert = false;
  document.documentElement.style.overflow = "";
  remember(false);
  if (document.fullscreenElement) document.exitFullscreen();
  document.querySelector("[data-present]")?.focus();
}
// A reload stays where it was.
function remember(on) {
  const url = new URL(location.href);
  if (on) url.searchParams.set("present", "1");
  else url.searchParams.delete("present");
  history.replaceState(history.state, "", url);
}
// Browsers allow it only as the answer to a key or a click.
function fill() {
  if (!presenting() || talk.full) return;
  talk.full = true;
  talk.root.requestFullscreen?.().catch(() => {});
}
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement && presenting() && talk.full) leave();
});
const typing = (target) => target.isContentEditable || target.matches?.("textarea, select, input:not([type=range], [type=checkbox], [type=radio])");
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
  if (!presenting()) {
    if (event.key.toLowerCase() === "p" && !event.repeat) {
      enter();
      fill();
    }
    return;
  }
  const key = event.key.toLowerCase(), pressed = event.target.matches("button") && (key === " " || key === "enter");
  const name = { " ": "next", enter: "next", pagedown: "next", pageup: "before", arrowleft: "back", arrowright: "on", arrowup: "back", arrowdown: "on", home: "first", end: "last", r: "replay", v: "blind", b: "blank", escape: "leave" }[key];
  touched();
  if (!name || pressed) return fill();
  event.preventDefault();
  event.stopImmediatePropagation();
  if (name !== "leave") fill();
  if (name === "before") beatBack();
  else if (name === "first") scrub(0);
  else if (name === "last") scrub(Infinity);
  else act(name);
}, true);
for (const kind of ["pointermove", "pointerdown", "wheel"]) window.addEventListener(kind, () => presenting() && touched(), { passive: true });
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-present]")) {
    enter();
    fill();
    return;
  }
  if (!presenting() || !talk.root.contains(event.target)) return;
  const name = event.target.closest("[data-does]")?.dataset.does ?? (event.target.closest(".u-pictures") && !talk.round ? "next" : null);
  if (!name) return;
  if (name !== "leave") fill();
  act(name);
  if (event.detail) talk.root?.focus(); // a click; with the keyboard the focus stays on the button
});
document.addEventListener("input", (event) => {
  if (!presenting() || !talk.root.contains(event.target)) return;
  talk.auto = "";
  scrub(Number(event.target.value));
});
// Gradio replaces the stage and the verdict as a run goes on; `?present=1` begins as soon as there is a stage.
let wanted = asked.get("present") === "1";
new MutationObserver((changes) => {
  if (presenting() && changes.every((change) => talk.root.contains(change.target) || live.contains(change.target))) return;
  if (wanted && theStage() && document.querySelector("#status section")) {
    wanted = false;
    enter();
  } else if (presenting()) tell();
}).observe(document, { childList: true, subtree: true });
