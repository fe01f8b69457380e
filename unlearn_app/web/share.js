// Share: a link that fills in the concept, the method and the seed, and the picture card of the result on screen.
function openShare() {
  const data = document.querySelector("#share [data-share]")?.dataset, dialog = element("dialog");
  const there = Boolean(data?.card), box = element("input"), row = element("div");
  dialog.id = "u-share";
  dialog.setAttribute("aria-labelledby", "u-share-title");
  const title = element("h2", "", "Share this result"), close = element("button", "", "Close");
  title.id = "u-share-title";
  close.type = "button";
  close.addEventListener("click", () => dialog.close());
  dialog.append(title);
  if (there) {
    const url = new URL(data.link, location.origin + location.pathname).href, card = element("img"), save = element("a", "", "Save the picture"), copy = element("button", "", "Copy the link");
    card.src = data.card;
    card.alt = "The picture card: who won, and a picture before, after forgetting and after the attack";
    save.href = data.card;
    save.download = data.name;
    Object.assign(box, { type: "text", readOnly: true, value: url });
    box.setAttribute("aria-label", "Link that fills in the concept, the method and the seed");
    copy.type = "button";
    copy.addEventListener("click", async () => {
      box.select();
      try {
        await navigator.clipboard.writeText(url);
      } catch {
        document.execCommand("copy"); // without https, browsers have no clipboard
      }
      copy.textContent = "Copied";
    });
    row.append(copy, save);
    if (navigator.share) {
      const send = element("button", "", "Send…");
      send.type = "button";
      send.addEventListener("click", () => navigator.share({ title: document.title, url }).catch(() => {}));
      row.append(send);
    }
    dialog.append(card, box);
  } else dialog.append(element("p", "", "There is a link and a picture as soon as a run is over."));
  row.append(close);
  dialog.append(row);
  dialog.addEventListener("close", () => {
    dialog.remove();
    document.querySelector("[data-open-share]")?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-open-share]")) openShare();
});
// Escape closes the dialog and stops no run.
window.addEventListener("keydown", (event) => {
  const dialog = document.querySelector("#u-share");
  if (!dialog) return;
  event.stopImmediatePropagation();
  if (event.key === "Escape") dialog.close();
}, true);
