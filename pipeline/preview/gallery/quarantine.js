"use strict";
// The quarantine: what failed, and why.
(() => {
  const { make, text, count, plural } = tokenloom;
  const STEP = 200;

  const link = (failure, overview) => {
    const shown = overview.cards.some(([key]) => key === failure.key);
    const key = text(failure.key || "(a part of a shard)");
    return shown ? make("a", { href: `#q=${encodeURIComponent(failure.key)}` }, key) : key;
  };

  const row = (failure, overview) =>
    make("tr", {},
      make("td", {}, link(failure, overview), failure.view === null ? "" : make("span", { class: "muted" }, ` view ${failure.view}`)),
      make("td", {}, failure.modality),
      make("td", {}, make("code", {}, text(failure.error)), " ", text(failure.reason)),
      make("td", { class: "muted" }, make("code", {}, failure.unit)));

  const table = (failures, overview) => {
    const body = make("tbody");
    const more = make("button", { onclick: () => fill() });
    let at = 0;
    const fill = () => {
      body.append(...failures.slice(at, at + STEP).map((failure) => row(failure, overview)));
      at = Math.min(at + STEP, failures.length);
      more.textContent = `${count(failures.length - at)} more`;
      more.hidden = at === failures.length;
    };
    fill();
    return [make("div", { class: "scroll" }, make("table", { class: "ledger" },
      make("thead", {}, make("tr", {}, ["sample", "modality", "reason", "unit"].map((heading) => make("th", {}, heading)))), body)), more];
  };

  tokenloom.quarantine = (overview, state, place) => {
    const { total, counts, failures } = overview.quarantine;
    if (!total) {
      place.replaceChildren(make("p", { class: "empty" }, "Nothing failed."));
      return;
    }
    const words = state.query.toLowerCase();
    const found = failures.filter((failure) => failure.key.toLowerCase().includes(words));
    const partial = failures.length < total ? ` The first ${count(failures.length)} are listed; tokenloom quarantine lists all.` : "";
    place.replaceChildren(
      make("p", { class: "muted lead" }, `${plural(total, "label")} failed.${partial}`),
      make("div", { class: "reasons" }, counts.map(([modality, error, times]) =>
        make("div", { class: "figure" }, make("b", {}, count(times)), make("span", {}, `${modality}: `, text(error))))),
      ...(found.length ? table(found, overview) : [make("p", { class: "empty" }, "no key holds these letters")]));
  };
})();
