"use strict";
// Retrieval: what was given, then the samples that are nearest to it.
(() => {
  const { make, text, count } = tokenloom;

  const FROM = { labels: "labels of rgb", tokens: "decoded tokens of rgb", corpus: "the corpus" };

  const content = (one) => {
    if (one.picture) return make("div", { class: "frame" }, make("img", { src: one.picture, alt: one.name }));
    if (one.table) return make("table", { class: "record" }, make("tbody", {}, Object.entries(one.table).map(([name, value]) =>
      make("tr", {}, make("th", {}, text(name)), make("td", {}, text(value))))));
    return text(one.text || one.said, { class: "prose" });
  };

  const given = (one) => make("section", { class: one.picture ? "tile" : "tile words", "data-modality": one.name },
    make("h3", {}, one.name), content(one), one.text ? null : make("p", { class: "hint" }, text(one.said)));

  const hit = (one, place) => make("figure", { class: "hit view" },
    one.image ? make("img", { src: one.image, alt: `the view of ${one.key}` })
      : make("div", { class: "unseen" }, "no picture of it can be had"),
    make("figcaption", { title: one.unit }, make("strong", {}, text(one.key)),
      make("span", { class: "score" }, `${count(place + 1)} · cosine ${one.score.toFixed(4)}`)));

  const origins = (hits) => {
    const found = [...new Set(hits.map((one) => FROM[one.origin]).filter(Boolean))];
    return found.length ? `Pictures are from ${found.join(", and ")}.` : "No pictures can be had.";
  };

  tokenloom.retrieved = (told) => {
    document.title = `${told.by} · tokenloom retrieve`;
    document.getElementById("head").replaceChildren(make("div", { class: "title" }, make("h1", {}, `Nearest by ${told.by}`),
      make("p", { class: "muted" }, text(told.head))));
    document.getElementById("main").replaceChildren(
      ...told.notes.map((note) => make("p", { class: "warning" }, text(note))),
      make("h2", {}, "Given"), make("div", { class: "given" }, told.given.map(given)),
      make("h2", {}, "Nearest"), make("p", { class: "muted lead" }, origins(told.hits)),
      make("div", { class: "hits" }, told.hits.map(hit)));
  };
})();
