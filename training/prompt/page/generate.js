"use strict";
// What was given, then a card of each draw with what the model says.
(() => {
  const { make, text, plural } = tokenloom;

  const tiles = (cells, modalities, title) => make("div", { class: "tiles" }, Object.entries(cells).map(([name, cell]) => {
    const tile = tokenloom.tile(cell, modalities[name], title);
    if (cell.from) tile.querySelector("h3").after(make("p", { class: "from" }, "from ", text(cell.from)));
    return tile;
  }));

  const given = ({ photo, cells }, modalities) => {
    const none = !Object.keys(cells).length;
    return make("article", { class: photo ? "sample given" : "sample texts given" },
      photo && make("div", { class: "side" }, make("figure", { class: "view" }, make("img", { src: photo, alt: "the photograph that was given" }))),
      make("div", {}, make("h2", {}, "given"), none ? make("p", { class: "muted" }, "nothing") : tiles(cells, modalities, "given")));
  };

  const card = ({ title, cells }, modalities) => make("article", { class: "sample texts" }, make("h2", {}, title), tiles(cells, modalities, title));

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
      make("h1", {}, `${Object.keys(told.given.cells).join(", ") || "nothing"} → ${targets.join(", ")}`),
      make("p", { class: "muted" }, text(told.checkpoint),
        ` · weights ${told.weights.slice(0, 12)} · ${plural(draws, "draw")}, seed ${told.seed}`,
        told.dataset && " · ids of ", told.dataset && text(told.dataset))));
    document.getElementById("main").replaceChildren(given(told.given, told.modalities),
      make("div", { class: "samples" }, told.cards.map((one) => card(one, told.modalities))), settings(told.settings));
  };
})();
