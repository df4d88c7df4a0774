"use strict";
// The frame: what the address says (#tab=, q=, page=, hide=) is what is shown.
(() => {
  const { make, text, count, plural } = tokenloom;
  const TABS = ["gallery", "statistics", "quarantine"];
  let overview;

  const read = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    const names = new Set(overview.modalities.map(({ name }) => name));
    return {
      tab: TABS.includes(said.get("tab")) ? said.get("tab") : "gallery",
      query: said.get("q") || "",
      page: Number.parseInt(said.get("page"), 10) || 1,
      hidden: new Set((said.get("hide") || "").split(",").filter((name) => names.has(name))),
    };
  };

  const write = (state) => {
    const said = new URLSearchParams();
    if (state.tab !== "gallery") said.set("tab", state.tab);
    if (state.query) said.set("q", state.query);
    if (state.page > 1) said.set("page", state.page);
    if (state.hidden.size) said.set("hide", [...state.hidden].join(","));
    history.replaceState(null, "", `#${said}`);
    render();
  };

  const change = (changed) => write({ ...read(), ...changed });

  const summary = () => {
    const { count: views, size } = overview.view;
    const parts = [plural(overview.samples, "sample"), plural(overview.modalities.length, "modality").replace(/ys$/, "ies"),
      overview.texts ? "texts" : `${views > 1 ? `${views} views` : "views"} of ${size} px`, `seed ${overview.seed}`];
    return make("p", { class: "muted" }, parts.join(" · "), " · from ", text(overview.corpus.join(", ")));
  };

  const warnings = () => {
    const random = overview.modalities.filter((modality) => modality.random).map(({ name }) => name);
    return [
      random.length > 0 && make("p", { class: "warning loud" }, make("strong", {}, "Random weights "),
        `made ${random.join(", ")}: these labels mean nothing.`),
      overview.problem && make("p", { class: "warning" }, text(overview.problem)),
    ];
  };

  const tab = (name) => {
    const total = overview.quarantine.total;
    return make("button", { class: "tab", "data-tab": name, onclick: () => change({ tab: name, page: 1 }) },
      name, name === "quarantine" && total > 0 && make("span", { class: "bubble" }, count(total)));
  };

  const head = () => {
    const search = make("input", { id: "search", type: "search", placeholder: "filter by key  ( / )", "aria-label": "filter by key",
      spellcheck: "false", oninput: (event) => change({ query: event.target.value, page: 1 }) });
    document.getElementById("head").replaceChildren(
      make("div", { class: "title" }, make("h1", {}, text(overview.name)), summary()),
      make("div", { class: "controls" }, make("nav", { class: "tabs" }, TABS.map(tab)), search));
    document.getElementById("main").before(...warnings().filter(Boolean));
  };

  const render = () => {
    const state = read();
    const main = document.getElementById("main");
    const search = document.getElementById("search");
    for (const button of document.querySelectorAll(".tab")) button.setAttribute("aria-current", String(button.dataset.tab === state.tab));
    if (search.value !== state.query) search.value = state.query;
    search.hidden = state.tab === "statistics";
    tokenloom.pages = null;
    if (state.tab === "statistics") tokenloom.statistics(overview, main);
    else if (state.tab === "quarantine") tokenloom.quarantine(overview, state, main);
    else tokenloom.samples(overview, state, main, change);
  };

  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("dialog").open) return;
    const typing = event.target.matches("input");
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const pages = tokenloom.pages;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search").focus();
    } else if (step && pages && pages.page + step >= 1 && pages.page + step <= pages.pages) pages.go(pages.page + step);
  };

  tokenloom.start = (data) => {
    overview = data;
    tokenloom.labelsShown = overview.modalities.some((modality) => modality.keeps_labels || modality.errors.labels > 0);
    document.title = `${overview.name} · tokenloom preview`;
    head();
    render();
    window.addEventListener("hashchange", render);
    document.addEventListener("keydown", press);
    const dialog = document.getElementById("dialog");
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  };
})();
