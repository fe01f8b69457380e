// A blind round in a presentation: the pictures of one prompt, without names and in another order every time; votes by click and by phone; then which was which.
const WHO = { original: "the original", forgetting: "has forgotten", attacked: "attacked" };
let voter = Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0")).join("");
try {
  voter = localStorage.getItem("unlearn-vote") ?? voter;
  localStorage.setItem("unlearn-vote", voter);
} catch {} // a browser that keeps nothing votes too
function shuffled(items) {
  const rest = [...items], order = [];
  while (rest.length) order.push(...rest.splice(crypto.getRandomValues(new Uint32Array(1))[0] % rest.length, 1));
  return order;
}
function askServer(detail) {
  document.querySelector("#round [data-round], #round [role=alert]")?.dispatchEvent(new CustomEvent("u-round", { bubbles: true, detail }));
}
function beginRound() {
  const story = tale();
  if (!story) return;
  // Where the attacker failed, its model has forgotten too: there would be two answers.
  const both = story.status?.dataset.label === "removed";
  const ends = story.ends.filter((end) => !both || story.phase(story.moments[end]) !== "attacked");
  if (ends.length < 2) return;
  const picks = story.picks.filter((pick) => !pick.note.startsWith("to keep"));
  const round = { pick: shuffled(picks)[0], order: shuffled(ends), code: null, url: "", qr: "", why: "", votes: 0, mine: null, counts: null, seen: askedBefore() };
  talk.round = round;
  askServer({ pictures: round.order.length });
  tell();
}
function askedBefore() {
  return document.querySelector("#round [data-round]")?.dataset.round ?? "";
}
// What the server said last: of the round that was begun, or its end.
function hear() {
  const { round } = talk, part = document.querySelector("#round [data-round]"), alert = document.querySelector("#round [role=alert]");
  if (alert) Object.assign(round, { why: alert.innerText, code: null, qr: "" });
  if (!part || part.dataset.round === round.seen) return;
  round.seen = part.dataset.round;
  const said = JSON.parse(round.seen);
  if (round.code !== null && said.code !== round.code) return;
  Object.assign(round, said);
  if (round.polled !== round.code) {
    round.polled = round.code;
    poll(round);
  }
}
const where = (round) => `${window.gradio_config?.root ?? ""}/vote/${round.code}`;
async function poll(round) {
  if (talk.round !== round || round.counts || !round.code) return;
  try {
    const said = await (await fetch(`${where(round)}/count`)).json();
    if (said.votes !== round.votes) {
      round.votes = said.votes ?? round.votes;
      if (talk.round === round) tell();
    }
  } catch {} // the next one may be answered
  setTimeout(poll, 1000, round);
}
async function choose(picture) {
  const { round } = talk;
  if (!round?.code || round.counts) return;
  const answer = await fetch(where(round), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: voter, picture }) });
  if (!answer.ok) return;
  round.mine = picture;
  round.votes = (await answer.json()).votes;
  tell();
}
// The first press reveals, the next one ends the round.
function turnRound() {
  const { round } = talk, story = tale();
  if (round.counts || !round.code) {
    talk.round = null;
    tell();
  } else askServer({ code: round.code, answer: round.order.findIndex((end) => story.phase(story.moments[end]) === "forgetting") });
}
const votes = (count) => (count === 1 ? "1 vote" : `${count} votes`);
function showRound(story) {
  hear();
  const { round, root } = talk, open = !round.counts;
  root.className = `u-beat-blind${open ? "" : " u-forgotten"}`;
  for (const item of root.querySelectorAll("li")) item.removeAttribute("data-on");
  root.querySelector(".u-what").textContent = round.pick.prompt;
  root.querySelector("h2").textContent = open ? "Which one has forgotten?" : `${"ABCD"[round.answer]} has forgotten`;
  put(round.order.map((end, place) => {
    const phase = story.phase(story.moments[end]), letter = "ABCD"[place];
    const made = figure(round.pick.frames[end].src, open ? `Picture ${letter}` : `Picture ${letter}: ${WHO[phase]}`, "");
    const button = element("button", "", open ? letter : `${letter}: ${WHO[phase]} · ${votes(round.counts[place])}`);
    button.type = "button";
    button.dataset.vote = place;
    button.disabled = !open;
    button.setAttribute("aria-pressed", place === round.mine);
    made.className = open ? "" : `u-${story.moments[end].phase}`;
    made.querySelector("figcaption").replaceChildren(button);
    return made;
  }));
  root.querySelector(".u-tally").textContent = open ? `${votes(round.votes)} so far` : "";
  root.querySelector(".u-told").textContent = "";
  nameNext(open ? "Reveal" : "Go on");
  const ways = element("div", "", open && round.code ? "Click a picture" : ""), poll = root.querySelector(".u-poll"), made = [];
  if (open && round.qr) {
    const code = element("img");
    code.src = round.qr;
    code.alt = `QR code for ${round.url}`;
    ways.append(", or vote by phone:", element("br"), element("b", "", round.url.replace(/^https?:\/\//, "")));
    made.push(code);
  } else if (open && round.why) ways.append(round.code ? ". " : "", round.why);
  poll.replaceChildren(...made, ways);
}
document.addEventListener("click", (event) => {
  const vote = presenting() && event.target.closest("#u-present figure")?.querySelector("[data-vote]");
  if (vote) choose(Number(vote.dataset.vote));
});
