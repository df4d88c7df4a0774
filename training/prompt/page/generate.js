"use strict";
// What was given, then a card of each draw with what the model says.
(() => {
  const { make, text, plural } = tokenloom;

  const tile = (name, cell, modalities, title) => {
    const made = tokenloom.tile(cell, modalities[name], title);
    if (cell.from) made.querySelector("h3").after(make("p", { class: "from" }, "from ", text(cell.from)));
    return made;
  };

  // What has a place in a square on the right, the rest beside it, as on the preview's cards.
  const card = (title, cells, modalities, kind) => {
    const tiles = (square) => Object.entries(cells).filter(([name]) => (modalities[name].layout === "squares") === square)
      .map(([name, cell]) => tile(name, cell, modalities, title));
    const [left, right] = [tiles(false), tiles(true)];
    const heading = make("h2", {}, title);
    if (left.length && right.length) {
      return make("article", { class: `sample ${kind}` }, make("div", { class: "side" }, heading, left), make("div", { class: "tiles" }, right));
    }
    return make("article", { class: `sample texts ${kind}` }, heading,
      left.length + right.length ? make("div", { class: "tiles" }, left, right) : make("p", { class: "muted" }, "nothing"));
  };

  const settings = (told) => {
    const names = [...new Set(Object.values(told).flatMap(Object.keys))];
    return make("details", { class: "settings" }, make("summary", {}, "settings"),
      make("div", { class: "scroll" }, make("table", { class: "ledger" },
        make("thead", {}, make("tr", {}, make("th", {}, "target"), names.map((name) => make("th", {}, name.replaceAll("_", " "))))),
        make("tbody", {}, Object.entries(told).map(([target, own]) => make("tr", {},
          make("td", {}, text(target)), names.map((name) => make("td", {}, own[name] === undefined ? "–" : text(own[name])))))))));
  };

  tokenloom.generated = (told) => {
    const targets = Object.keys(told.settings);
    const draws = told.cards.filter(({ title }) => title.startsWith("draw ")).length;
    document.title = `${targets.join(", ")} · tokenloom generate`;
    document.getElementById("head").replaceChildren(make("div", { class: "title" },
      make("h1", {}, `${Object.keys(told.given).join(", ") || "nothing"} → ${targets.join(", ")}`),
      make("p", { class: "muted" }, text(told.checkpoint),
        ` · weights ${told.weights.slice(0, 12)} · ${plural(draws, "draw")}, seed ${told.seed}`,
        told.dataset && " · ids of ", told.dataset && text(told.dataset))));
    document.getElementById("main").replaceChildren(
      card("given", told.given, told.modalities, "given"),
      make("div", { class: "samples" }, told.cards.map(({ title, cells }) => card(title, cells, told.modalities, ""))),
      settings(told.settings));
  };
})();
