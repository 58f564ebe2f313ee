// Small helpers that build elements.

const SVG = "http://www.w3.org/2000/svg"

/** An HTML element. `attributes` are set as attributes; `children` are elements or text. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children)
}

/** The same for an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children)
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

const OUTLINES = {
  play: "M5 3.2v9.6L12.6 8z",
  pause: "M4.4 3.2h2.2v9.6H4.4zM9.4 3.2h2.2v9.6H9.4z",
  passed: "M8 14.4A6.4 6.4 0 1 0 8 1.6a6.4 6.4 0 0 0 0 12.8zM5 8.3l2.1 2.1L11.2 6",
  failed: "M8 2.2 14.6 13.6H1.4zM8 6.6v3.2M8 11.7v.1",
  stopped: "M8 14.4A6.4 6.4 0 1 0 8 1.6a6.4 6.4 0 0 0 0 12.8zM5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6",
  // Two frames, one over the other.
  seam: "M2 4.6h7.4V12H2zM6.6 4.6V2H14v7.4H9.4",
  loop: "M4.6 4.6A4.8 4.8 0 1 1 3.4 9.4M4.6 1.6v3h3",
}
const SOLID = new Set(["play", "pause"])

/** One of the icons above, in the text colour. Hidden from screen readers: there is always text beside it. */
export function icon(name) {
  const path = svg("path", {
    d: OUTLINES[name],
    fill: SOLID.has(name) ? "currentColor" : "none",
    stroke: SOLID.has(name) ? "none" : "currentColor",
    "stroke-width": "1.5",
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
  })
  return svg("svg", { viewBox: "0 0 16 16", class: "la-icon", "aria-hidden": "true" }, path)
}
