"use strict";
// Batches: figures, then samples with what of each modality is input, and what is target.
(() => {
  const { make, text, count, plural, percent, colour } = tokenloom;

  const SENTINEL = /^\[S_\d+\]$/;
  const COORDINATE = /^v([0-3])=\d+$/;
  const SIDES = ["input", "target"];

  const number = (value) => make("td", { class: "number" }, value);

  const table = (headings, rows) => make("div", { class: "scroll" }, make("table", { class: "ledger" },
    make("thead", {}, make("tr", {}, headings.map(([heading, kind]) => make("th", { class: kind }, heading)))),
    make("tbody", {}, rows)));

  const datasets = (told) => table(
    [["dataset"], ["samples", "number"], ["share", "number"], [`epochs in ${count(told.steps)} steps`, "number"]],
    told.datasets.map((one) => make("tr", {}, make("td", { title: one.url }, text(one.name)), number(count(one.samples)),
      number(percent(one.share)), number(one.epochs.toLocaleString("en-GB")))));

  const modalities = (told) => {
    const most = Math.max(...told.modalities.flatMap((one) => SIDES.map((side) => one[side][0])), 1e-9);
    const bar = (side, value) => make("span", { class: `meter ${side}`, style: { width: `${(100 * value) / most}%` } });
    return table(
      [["modality"], ["input", "number"], ["in", "number"], ["target", "number"], ["in", "number"], ["tokens of a sample", ""]],
      told.modalities.map((one) => make("tr", { "data-modality": one.name }, make("td", {}, one.name),
        SIDES.map((side) => [number(one[side][0].toFixed(1)), number(percent(one[side][1]))]).flat(),
        make("td", { class: "bars" }, SIDES.map((side) => bar(side, one[side][0]))))));
  };

  const pieces = (shown) => make("div", { class: "pieces" }, shown.pieces.map((piece) => {
    const coordinate = COORDINATE.exec(piece);
    const kind = SENTINEL.test(piece) ? " sentinel" : coordinate ? ` v${coordinate[1]}` : "";
    return make("bdi", { class: `piece${kind}` }, piece);
  }));

  const codes = (ids) => make("div", { class: "codes", style: { "--columns": String(Math.ceil(Math.sqrt(ids.length))) } },
    ids.map((id) => (id === null ? make("span", { class: "gone" }, "–") : make("span", { style: { background: colour(id) } }, String(id)))));

  const square = (shown, side, name) => make("figure", { class: "square" },
    make("div", { class: "frame" }, !shown ? null
      : shown.picture ? make("img", { src: shown.picture, alt: `${name}, ${side}`, loading: "lazy", decoding: "async" }) : codes(shown.ids)),
    make("figcaption", {}, `${side}: ${shown ? plural(shown.count, "token") : "none"}${shown && shown.of ? ` of ${shown.of}` : ""}`));

  const line = (shown, side) => make("div", { class: "line" },
    make("span", { class: "what" }, `${side}: ${shown ? plural(shown.count, "token") : "none"}`), shown && pieces(shown));

  const tile = (name, cell) => {
    const words = SIDES.some((side) => cell[side] && cell[side].pieces);
    return make("section", { class: "tile", "data-modality": name }, make("h3", {}, name),
      make("div", { class: words ? "texts" : "pair" },
        SIDES.map((side) => (words ? line(cell[side], side) : square(cell[side], side, name)))));
  };

  const card = (sample) => make("article", { class: "sample" },
    make("div", { class: "side" }, make("figure", { class: "view" },
      sample.text ? null : sample.image ? make("img", { src: sample.image, alt: `the view of ${sample.key}`, loading: "lazy", decoding: "async" })
        : make("div", { class: "unseen" }, "no picture of it can be had"),
      make("figcaption", {}, make("strong", {}, text(sample.key)),
        make("span", {}, `${sample.dataset}, view ${sample.view}`), make("span", {}, `position ${count(sample.position)}`)))),
    make("div", { class: "tiles" }, Object.keys(sample.cells).length
      ? Object.entries(sample.cells).map(([name, cell]) => tile(name, cell))
      : make("p", { class: "empty" }, "an empty sample: it has no token of what it may show or say")));

  const range = ([least, most]) => (least === most ? count(most) : `${count(least)} to ${count(most)}`);

  tokenloom.batches = (told) => {
    document.title = `${told.name} · tokenloom batches`;
    document.getElementById("head").replaceChildren(make("div", { class: "title" }, make("h1", {}, text(told.name)),
      make("p", { class: "muted" }, [`batches of ${count(told.batch_size)}`, `${range(told.budgets[0])} input and ${range(told.budgets[1])} target tokens`,
        `masking ${told.masking}`, `seed ${told.seed}`].join(" · "))));
    const share = (empty) => percent(empty / told.samples);
    document.getElementById("main").replaceChildren(
      ...told.notes.map((note) => make("p", { class: "warning" }, text(note))),
      make("p", { class: "muted lead" }, `From ${plural(told.samples, "sample")}, made at ${count(told.rate)} a second in one process; ` +
        `${share(told.empty[0])} without any input, ${share(told.empty[1])} without any target` +
        told.skipped.map(([name, samples]) => `; ${name} couldn't be read in ${plural(samples, "sample")}`).join("") + "."),
      make("div", { class: "tables" }, datasets(told), modalities(told)),
      make("div", { class: "samples" }, told.cards.map(card)));
  };
})();
