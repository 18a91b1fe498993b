"use strict";
// The page's data, small helpers, and the state that the address's fragment keeps.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** Make an element: node("a", {href: "#x"}, "text", child). */
function node(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function svgNode(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Fill a select with [value, text] pairs and choose `value`, or the first. */
function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, text]) => node("option", { value: key }, text)));
  select.value = pairs.some(([key]) => String(key) === String(value)) ? value : pairs.length ? pairs[0][0] : "";
  return select.value;
}

const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

/** Change the state and the address. */
function remember(changes) {
  for (const [key, value] of Object.entries(changes)) state.set(key, value);
  history.replaceState(null, "", "#" + state);
}

const shortName = (name) => name.replace(/\.[a-z]+$/i, "");
const decibels = (value) => (value === null ? "" : `${value.toFixed(2)} dB`);
