"use strict";
// One global, shared by all scripts: pages opened from disk can't load modules.
const tokenloom = {};

// An element with attributes and children. Strings become text nodes, so nothing that comes from a dataset is markup.
tokenloom.make = (tag, attributes, ...children) => {
  const svg = ["svg", "rect", "line", "text", "title", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

tokenloom.count = (number) => number.toLocaleString("en-GB");

tokenloom.plural = (number, word) => `${tokenloom.count(number)} ${word}${number === 1 ? "" : "s"}`;

tokenloom.percent = (share) =>
  share > 0 && share < 0.001 ? "< 0.1 %" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

// Text from a dataset, in its own direction and unable to turn its surroundings.
tokenloom.text = (text, attributes) => tokenloom.make("bdi", { dir: "auto", ...attributes }, text);

// The colour of a token id: hues a golden angle apart, so that ids in a row look different.
tokenloom.colour = (id) => {
  const hue = ((id * 0.6180339887498949 + 0.02) % 1) * 360;
  return `hsl(${hue.toFixed(1)} ${[42, 55, 32][Math.floor(id / 3) % 3]}% ${[60, 46, 74][Math.floor(id / 2) % 3]}%)`;
};
