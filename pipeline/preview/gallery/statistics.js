"use strict";
// Statistics: one panel per modality.
(() => {
  const { make, text, count, plural, percent } = tokenloom;
  const WIDTH = 320, HEIGHT = 88;

  // Bars from [height, title] pairs, the tallest filling the chart.
  const chart = (bars, name, low, high, logarithmic) => {
    const scale = logarithmic ? (value) => Math.log1p(value) : (value) => value;
    const top = Math.max(...bars.map(([value]) => scale(value)), 1e-9);
    const step = WIDTH / bars.length;
    const gap = Math.min(2, step * 0.2);
    return make("figure", { class: "chart" },
      make("figcaption", {}, name),
      make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name, preserveAspectRatio: "none" },
        bars.map(([value, title], place) => {
          const height = Math.max(value > 0 ? 1 : 0, (scale(value) / top) * HEIGHT);
          return make("rect", { x: place * step, y: HEIGHT - height, width: step - gap, height }, make("title", {}, title));
        })),
      make("div", { class: "axis" }, make("span", {}, low), make("span", {}, high)));
  };

  const usage = (codes, vocabulary) =>
    chart(codes.bars.map((mean, place) => [mean, `group ${place + 1} of ${codes.bars.length}: ${mean} times each`]),
      "how often codes occur, by rank (log)", `${plural(codes.most, "time")}`, `code ${count(codes.used)}`, true);

  const lengths = (bars) =>
    chart(bars.map(([low, high, rows]) => [rows, `${low === high ? low : `${low} to ${high}`} tokens: ${rows}`]),
      "tokens per sample", count(bars[0][0]), count(bars[bars.length - 1][1]), false);

  const figure = (value, name, loud) =>
    make("div", { class: loud ? "figure loud" : "figure" }, make("b", {}, value), make("span", {}, name));

  const figures = (modality) => {
    const codes = modality.codes;
    const spec = modality.tokens;
    const lengths = modality.lengths || [];
    const range = lengths.length ? [lengths[0][0], lengths[lengths.length - 1][1]] : [];
    return make("div", { class: "figures" },
      figure(count(modality.made), "made"),
      figure(count(modality.missing), "without one"),
      figure(count(modality.failed), "failed", modality.failed > 0),
      range.length > 0 && figure([...new Set(range)].map(count).join("–"), `tokens each${spec.length === null ? `, ≤ ${count(spec.max_length)}` : ""}`),
      codes && figure(count(spec.vocabulary), "vocabulary"),
      codes && figure(percent(codes.used / spec.vocabulary), `used, ${count(codes.used)} codes`),
      codes && figure(count(codes.perplexity), "perplexity"));
  };

  // The mean errors of what the gallery shows, where labels are there to compare with.
  const errors = ({ labels, means }) =>
    make("div", { class: "reconstruction" }, make("p", { class: "what" }, `error of the reconstruction, over ${count(labels)} shown`),
      make("div", { class: "figures" }, means.map(([name, value, title]) =>
        make("div", { class: "figure", title }, make("b", {}, value), make("span", {}, name)))));

  const settings = (params) => Object.entries(params).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(", ");

  // What fitting measured: {"codes", "sample", "loss": {name: number or null}, "note"}.
  const fit = ({ loss, sample, note }) => {
    const measured = Object.entries(loss).filter(([, value]) => value !== null)
      .map(([name, value]) => `${name.replace(/_/g, " ")} ${Number(value).toPrecision(3)}`).join(", ");
    return `${measured}${measured ? " on" : "fitted to"} a sample of ${count(sample)}${note ? `; ${note}` : ""}`;
  };

  const fact = (name, ...content) => [make("dt", {}, name), make("dd", {}, content)];

  const facts = (modality) => {
    const { weights, tokens } = modality;
    return make("dl", {},
      fact("labeler", make("code", {}, modality.labeler), ` v${modality.version}`),
      settings(modality.params) && fact("parameters", text(settings(modality.params))),
      weights && fact("weights", text(weights.source),
        weights.sha256 !== "random" && make("code", { title: `SHA-256 ${weights.sha256}`, class: "muted" }, ` ${weights.sha256.slice(0, 12)}`)),
      weights && fact("licence of weights", text(weights.licence)),
      fact("licence of code", text(modality.licence)),
      modality.requires.length > 0 && fact("made from", modality.requires.join(", ")),
      tokens && fact("tokenizer", make("code", {}, tokens.tokenizer), settings(tokens.params) && text(` ${settings(tokens.params)}`, { class: "muted" })),
      modality.loss && fact("its loss", modality.loss.replace(/^Loss[^:]*:\s*/, "")),
      modality.fit && fact("measured", text(fit(modality.fit))),
      !tokens && fact("tokens", "none: labels only"),
      fact("kept", [modality.keeps_tokens && "tokens", modality.keeps_labels && "labels"].filter(Boolean).join(" and ")),
      modality.generation && fact("generation", make("code", {}, modality.generation)));
  };

  const frequent = (codes) => make("p", { class: "frequent" }, make("span", { class: "what" }, "most frequent"),
    codes.frequent.map(([piece, times]) => make("span", { class: "piece", title: plural(times, "time") }, text(piece))));

  const panel = (modality, units) =>
    make("section", { class: "panel" },
      make("h2", {}, modality.name, make("span", { class: "kind" }, modality.kind.replace("_", " ")),
        modality.random && make("span", { class: "badge random" }, "random weights"),
        modality.finished < units && make("span", { class: "badge" }, `${count(modality.finished)} of ${plural(units, "unit")} made`)),
      figures(modality),
      modality.errors.means.length > 0 && errors(modality.errors),
      modality.codes && modality.codes.used > 0 && make("div", { class: "charts" }, usage(modality.codes),
        modality.lengths.length > 1 && lengths(modality.lengths)),
      modality.codes && modality.codes.used > 0 && frequent(modality.codes),
      facts(modality));

  tokenloom.statistics = (overview, place) => {
    const { surveyed } = overview;
    const scope = surveyed.units < overview.units
      ? `From ${count(surveyed.units)} of ${plural(overview.units, "unit")}, evenly spread: ${plural(surveyed.samples, "sample")} of ${count(overview.samples)}.`
      : `From all ${plural(overview.samples, "sample")}${overview.view.count > 1 ? `, with ${overview.view.count} views each` : ""}.`;
    place.replaceChildren(make("p", { class: "muted lead" }, scope),
      make("div", { class: "panels" }, overview.modalities.map((modality) => panel(modality, overview.units))));
  };
})();
