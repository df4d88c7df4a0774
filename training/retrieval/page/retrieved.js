"use strict";
// Retrieval: what was given, and the samples whose vectors are nearest to what that came to.
(() => {
  const { make, text, count, plural, show } = tokenloom;

  const ORIGINS = { labels: "its label", corpus: "from the corpus", tokens: "decoded from its tokens" };

  const given = (one) => make("section", { class: "tile", "data-modality": one.modality },
    make("h3", {}, one.modality, make("span", { class: "hint" }, text(one.said))), show(one, one.modality));

  const match = (one, place) => make("figure", { class: "match" },
    one.image ? make("img", { src: one.image, alt: `the view of ${one.key}`, loading: "lazy", decoding: "async" })
      : make("div", { class: "unseen" }, "no picture of it can be had"),
    make("figcaption", {}, make("strong", {}, `${place + 1}. `, text(one.key)),
      make("span", {}, `distance ${one.distance.toPrecision(4)}, view ${one.view}`),
      one.origin && make("span", {}, ORIGINS[one.origin])));

  tokenloom.retrieved = (told) => {
    const how = told.predicted ? `${told.by} as ${told.checkpoint} predicts it` : `${told.by} as it was given`;
    document.title = `${told.by} · tokenloom retrieve`;
    document.getElementById("head").replaceChildren(make("div", { class: "title" }, make("h1", {}, text(told.dataset)),
      make("p", { class: "muted" }, text(`nearest to ${how}, among ${plural(told.samples, "sample")}, by their ` +
        (told.origin === "labels" ? "labels" : "tokens, decoded") +
        (told.lacking ? `; ${count(told.lacking)} have none` : "") +
        (told.unmade ? `; of ${count(told.unmade)} more it isn't made yet` : "")))));
    document.getElementById("main").replaceChildren(
      make("div", { class: "query" }, told.given.map(given)),
      make("div", { class: "matches" }, told.matches.map(match)));
  };
})();
