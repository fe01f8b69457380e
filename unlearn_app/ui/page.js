// Chips fill the box, Escape stops a run; delegated, because Gradio replaces the elements it renders.
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
  const stop = document.querySelector("#stop");
  if (stop && stop.offsetParent !== null && !stop.disabled) stop.click();
});
