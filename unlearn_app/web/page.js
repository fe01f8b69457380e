// Chips fill the box, Escape stops a run or its attacks, leaving while something runs asks first, the slider goes through the attack, small pictures keep hard pixels; delegated, because Gradio replaces the elements it renders.
document.addEventListener("load", (event) => {
  const image = event.target;
  if (image.tagName === "IMG" && image.naturalWidth <= 128) image.style.imageRendering = "pixelated";
}, true);
document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-concept]");
  if (!chip) return;
  const box = document.querySelector("#concept textarea, #concept input");
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
