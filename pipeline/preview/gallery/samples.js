"use strict";
// The samples: filtered by key, a page at a time. A page's data is a script, loaded when its samples are first looked at.
(() => {
  const { make, text, count, plural } = tokenloom;

  const ORIGINS = { labels: "", corpus: "view from the corpus", tokens: "decoded from the tokens of rgb" };
  const loaded = new Map();
  const waiting = new Map();

  tokenloom.page = (number, cards) => waiting.get(number).resolve(cards);

  const load = (number) => {
    if (!loaded.has(number)) {
      const source = `data/page-${String(number).padStart(4, "0")}.js`;
      loaded.set(number, new Promise((resolve, reject) => {
        waiting.set(number, { resolve });
        document.head.append(make("script", { src: source, onerror: () => reject(new Error(`${source} can't be read`)) }));
      }));
    }
    return loaded.get(number);
  };

  const matches = (overview, query) => {
    const words = query.toLowerCase();
    const all = overview.cards.map((card, index) => index);
    return words ? all.filter((index) => overview.cards[index][0].toLowerCase().includes(words)) : all;
  };

  const card = (sample, overview, hidden) => {
    const title = sample.key + (overview.view.count > 1 ? `, view ${sample.view}` : "");
    const shown = overview.modalities.map((modality, index) => [sample.cells[index], modality])
      .filter(([, modality]) => !hidden.has(modality.name));
    const tiles = (square) => shown.filter((pair) => (pair[1].layout === "squares") === square)
      .map(([cell, modality]) => tokenloom.tile(cell, modality, title));
    return make("article", { class: overview.texts ? "sample texts" : "sample" },
      make("div", { class: "side" }, make("figure", { class: "view" },
        overview.texts ? null : sample.image ? make("img", { src: sample.image, alt: `the view of ${sample.key}`, loading: "lazy", decoding: "async" })
          : make("div", { class: "unseen" }, "no picture of it can be had"),
        make("figcaption", {},
          make("strong", {}, text(sample.key)),
          overview.view.count > 1 && make("span", {}, `view ${sample.view}`),
          ORIGINS[sample.origin] && make("span", {}, ORIGINS[sample.origin]))), tiles(false)),
      make("div", { class: "tiles" }, tiles(true)));
  };

  const pager = (page, pages, go) =>
    make("nav", { class: "pager", "aria-label": "pages" },
      make("button", { disabled: page <= 1, onclick: () => go(page - 1), "aria-label": "previous page", title: "previous page (←)" }, "←"),
      make("label", {}, make("input", { type: "number", min: 1, max: pages, value: page, "aria-label": "page",
        onchange: (event) => go(Number(event.target.value) || 1) }), ` of ${count(pages)}`),
      make("button", { disabled: page >= pages, onclick: () => go(page + 1), "aria-label": "next page", title: "next page (→)" }, "→"));

  const chips = (overview, hidden, toggle) =>
    make("div", { class: "chips", role: "group", "aria-label": "modalities" },
      overview.modalities.map(({ name }) =>
        make("button", { class: "chip", "aria-pressed": String(!hidden.has(name)), onclick: () => toggle(name) }, name)));

  // Cards of the current page, in `place`; `change` takes what the address shall say next.
  tokenloom.samples = async (overview, state, place, change) => {
    const found = matches(overview, state.query);
    const pages = Math.max(1, Math.ceil(found.length / overview.page_size));
    const page = Math.min(Math.max(1, state.page), pages);
    const go = (to) => { change({ page: to }); window.scrollTo({ top: 0 }); };
    const toggle = (name) => {
      const hidden = new Set(state.hidden);
      if (!hidden.delete(name)) hidden.add(name);
      change({ hidden });
    };
    const numbers = found.slice((page - 1) * overview.page_size, page * overview.page_size);
    const of = overview.cards.length < overview.samples * overview.view.count
      ? `, of ${count(overview.samples)} in the dataset` : "";
    const tally = state.query ? `${plural(found.length, "match").replace(/matchs$/, "matches")} of ${count(overview.cards.length)} shown`
      : `${plural(overview.cards.length, overview.view.count > 1 ? "view" : "sample")}${of}`;
    tokenloom.pages = { page, pages, go };
    const list = make("div", { class: "samples" });
    const turn = () => (pages > 1 ? pager(page, pages, go) : "");
    place.replaceChildren(
      make("div", { class: "bar" }, chips(overview, state.hidden, toggle),
        make("div", { class: "where" }, make("span", { class: "muted tally" }, tally), turn())),
      list, make("div", { class: "bar end" }, turn()));
    try {
      for (const number of numbers) {
        const cards = await load(Math.floor(number / overview.page_size));
        if (!list.isConnected) return;
        list.append(card(cards[number % overview.page_size], overview, state.hidden));
      }
    } catch (error) {
      list.append(make("p", { class: "empty" }, error.message));
    }
    if (!numbers.length) list.append(make("p", { class: "empty" }, state.query ? "no key holds these letters" : "no samples yet"));
  };
})();
