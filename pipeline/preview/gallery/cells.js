"use strict";
// Cells: one modality of one view, as its label, decoded from its tokens, and as the tokens themselves.
(() => {
  const { make, text, colour, plural } = tokenloom;

  const COORDINATE = /^v([0-3])=\d+$/;

  const problem = (shown) => make("p", { class: "problem" }, "can't be shown: ", text(shown.problem));

  const picture = (shown, name) =>
    make("img", { src: shown.picture, alt: name, loading: "lazy", decoding: "async" });

  const palettes = (lists) =>
    make("div", { class: "palettes", role: "img", "aria-label": "colours" }, lists.map((list) =>
      make("div", {}, list.map(([red, green, blue]) =>
        make("span", { title: `${red}, ${green}, ${blue}`, style: { background: `rgb(${red} ${green} ${blue})` } })))));

  const show = (shown, name) => {
    if (shown.problem !== undefined) return problem(shown);
    if (shown.picture) return picture(shown, name);
    if (shown.palettes) return palettes(shown.palettes);
    if (shown.table) return table(shown, null);
    return text(shown.text, { class: "prose" });
  };

  tokenloom.show = show;

  // A name that may be broken after its underscores.
  const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [text(part), make("wbr")]);

  const table = (label, decoded) => {
    const names = Object.keys({ ...(label && label.table), ...(decoded && decoded.table) });
    const columns = [["label", label], ["decoded", decoded]].filter(([, shown]) => shown && shown.table);
    return make("table", { class: "record" },
      make("thead", {}, make("tr", {}, make("th", {}), columns.map(([heading]) => make("th", {}, heading)))),
      make("tbody", {}, names.map((name) => make("tr", {},
        make("th", { scope: "row" }, breakable(name)),
        columns.map(([, shown]) => make("td", {}, text(name in shown.table ? shown.table[name] : "–")))))));
  };

  // Tokens in space: one coloured pixel per id, drawn large by the style sheet; pointing at one tells it.
  const grid = (ids, [rows, columns], caption) => {
    const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": `${rows} × ${columns} token ids` });
    const pen = canvas.getContext("2d");
    ids.forEach((id, place) => {
      pen.fillStyle = colour(id);
      pen.fillRect(place % columns, Math.floor(place / columns), 1, 1);
    });
    const said = caption.textContent;
    canvas.addEventListener("mousemove", (event) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
      const row = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows)));
      caption.textContent = `row ${row}, column ${column}: ${ids[row * columns + column]}`;
    });
    canvas.addEventListener("mouseleave", () => { caption.textContent = said; });
    return canvas;
  };

  const pieces = (tokens) =>
    make("div", { class: "pieces" }, tokens.pieces.map((piece, place) => {
      const coordinate = COORDINATE.exec(piece);
      return make("bdi", { class: coordinate ? `piece v${coordinate[1]}` : "piece", title: `id ${tokens.ids[place]}` }, piece);
    }), tokens.more ? ` and ${tokens.more.toLocaleString("en")} more` : null);

  const counted = (tokens) => plural(tokens.ids.length + (tokens.more || 0), "token");

  const codes = (ids) =>
    make("div", { class: "codes", style: { "--columns": String(Math.ceil(Math.sqrt(ids.length))) } },
      ids.map((id) => make("span", { style: { background: colour(id) } }, String(id))));

  const tokenFrame = (tokens, modality, caption) => {
    const spec = modality.tokens || {};
    if (tokens.pieces) return pieces(tokens);
    if (spec.grid && spec.grid[0] * spec.grid[1] === tokens.ids.length) return grid(tokens.ids, spec.grid, caption);
    return codes(tokens.ids);
  };

  const tokenCaption = (tokens, modality) => {
    const spec = modality.tokens || {};
    return spec.grid ? `${spec.grid[0]} × ${spec.grid[1]} tokens` : counted(tokens);
  };

  const square = (content, caption, kind) =>
    make("figure", { class: `square ${kind}` }, make("div", { class: "frame" }, content), caption);

  const vacant = (kind, words) => square(make("span", {}, words), make("figcaption", {}, kind), `${kind} vacant`);

  // Up to three squares. What the dataset doesn't keep has a vacant one, so that columns stay columns down the card.
  const squares = (cell, modality) => {
    const caption = (words) => make("figcaption", {}, words);
    const found = [];
    if (cell.label) {
      found.push(square(show(cell.label, `${modality.name}, label`), caption(cell.label.whole ? "label, whole image" : "label"), "label"));
    } else if (!modality.keeps_labels && tokenloom.labelsShown) found.push(vacant("label", "not kept"));
    if (cell.decoded) found.push(square(show(cell.decoded, `${modality.name}, decoded`), caption("decoded"), "decoded"));
    if (cell.tokens) {
      const words = caption(tokenCaption(cell.tokens, modality));
      found.push(square(tokenFrame(cell.tokens, modality, words), words, "tokens"));
    }
    return cell.label || cell.tokens ? found : [];
  };

  // How far the reconstruction is from the label: names, values, and, for who points at one, what it measures.
  const errors = (cell) => {
    if (cell.incomparable !== undefined) return make("p", { class: "errors problem" }, "can't be compared: ", text(cell.incomparable));
    if (!cell.errors) return null;
    return make("p", { class: "errors" }, cell.errors.map(([name, value, title]) =>
      make("span", { title }, name, " ", make("b", {}, value))));
  };

  const line = (name, content) => make("div", { class: "line" }, make("span", { class: "what" }, name), content);

  const lines = (cell) => [
    cell.label && line("label", show(cell.label, "label")),
    cell.decoded && line("decoded", show(cell.decoded, "decoded")),
    errors(cell),
    cell.tokens && line(counted(cell.tokens), tokenFrame(cell.tokens, {}, null)),
  ];

  const tabled = (cell) => [
    table(cell.label, cell.decoded),
    [cell.label, cell.decoded].filter((shown) => shown && shown.problem !== undefined).map(problem),
    errors(cell),
    cell.tokens && make("details", {}, make("summary", {}, counted(cell.tokens)), tokenFrame(cell.tokens, {}, null)),
  ];

  const note = (cell) => {
    if (cell.state === "failed") {
      return make("p", { class: "note failed" }, make("strong", {}, "in quarantine "), text(`${cell.error}: ${cell.note}`));
    }
    if (cell.state === "unread") return make("p", { class: "note" }, text(cell.note));
    if (cell.state === "missing") return make("p", { class: "note" }, "this sample has none");
    return null;
  };

  // Squares without a label have a vacant one that says so, unless no modality at all has labels.
  const unkept = (cell, modality) =>
    cell.decoded && !cell.label && !modality.keeps_labels && !(modality.layout === "squares" && tokenloom.labelsShown);

  const badges = (cell, modality) => [
    modality.random && make("span", { class: "badge random" }, "random weights"),
    !modality.keeps_tokens && make("span", { class: "hint" }, modality.tokens ? "tokens not kept" : "not tokenised"),
    unkept(cell, modality) && make("span", { class: "hint" }, "label isn't kept"),
  ];

  // The dialog's view of a cell: the same, large, with all ids to read and copy.
  const enlarge = (cell, modality, title) => {
    const dialog = document.getElementById("dialog");
    const close = make("button", { class: "plain", "aria-label": "close", onclick: () => dialog.close() }, "✕");
    dialog.replaceChildren(
      make("header", {}, make("h2", {}, modality.name, " ", make("span", { class: "muted" }, text(title))), close),
      make("div", { class: "cells" }, squares(cell, modality)), errors(cell) || "",
      cell.tokens ? make("details", {}, make("summary", {}, "token ids"), make("pre", {}, cell.tokens.ids.join(" "))) : "");
    dialog.showModal();
  };

  // The tile of a modality on a sample's card.
  tokenloom.tile = (cell, modality, title) => {
    const kind = modality.layout;
    const content = kind === "squares" ? squares(cell, modality) : kind === "table" ? tabled(cell) : lines(cell);
    const cells = make("div", { class: "cells" }, content);
    if (kind === "squares" && content.length) {
      cells.addEventListener("click", () => enlarge(cell, modality, title));
      cells.classList.add("open");
    }
    return make("section", { class: `tile ${kind}`, "data-modality": modality.name, "data-kind": modality.kind },
      make("h3", {}, modality.name, badges(cell, modality)), note(cell), content.some(Boolean) && cells,
      kind === "squares" && errors(cell));
  };
})();
