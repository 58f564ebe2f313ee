// The seam chart: one bar per step of the loop, with the seam in the middle.

import { svg } from "./dom.js"
import { say } from "./words.js"

const MAX_BARS = 121 // of a long clip only the steps around the seam are drawn
const HEADROOM = 1.08

/**
 * Bars in playing order, rotated so that the seam is in the middle.
 *
 * @param {number[]} steps difference between each frame and the next; the last one is the seam.
 * @returns {{bars: {step: number, frame: number, left: number, width: number, height: number,
 *   seam: boolean}[], scale: number}} lengths in percent of the plot; a step goes from
 *   `frame` to the next; `scale` is the step that would fill the plot.
 */
export function chartBars(steps) {
  const count = steps.length
  if (!count) return { bars: [], scale: 1 }
  const half = (MAX_BARS - 1) / 2
  const before = Math.min(Math.floor((count - 1) / 2), half)
  const after = Math.min(count - 1 - before, half)
  const shown = before + 1 + after
  const order = Array.from({ length: shown }, (_, i) => (count - 1 - before + i) % count)
  const scale = Math.max(...order.map((frame) => steps[frame]), 1e-6) * HEADROOM
  const bars = order.map((frame, i) => ({
    step: steps[frame],
    frame,
    left: ((i + 0.14) / shown) * 100,
    width: (0.72 / shown) * 100,
    height: (steps[frame] / scale) * 100,
    seam: frame === count - 1,
  }))
  return { bars, scale }
}

/**
 * Draw the chart into an SVG element. Lengths are in percent, so it fits every size and zoom.
 *
 * @param {SVGElement} plot is cleared first.
 * @param {{steps: number[], motion: number}} report
 * @param {(frame: number) => void} onPick called with the frame whose bar was clicked.
 * @returns {(frame: number | null) => void} marks the step that starts at this frame.
 */
export function drawChart(plot, { steps, motion }, onPick) {
  const { bars, scale } = chartBars(steps)
  const marks = new Map()
  const groups = bars.map((bar, i) => {
    const mark = svg("rect", {
      class: bar.seam ? "la-bar la-seam" : "la-bar",
      x: `${bar.left}%`,
      width: `${bar.width}%`,
      y: `${100 - Math.max(bar.height, 0.8)}%`,
      height: `${Math.max(bar.height, 0.8)}%`,
    })
    marks.set(bar.frame, mark)
    const column = { x: `${(i / bars.length) * 100}%`, width: `${100 / bars.length}%`, height: "100%" }
    const title = svg("title")
    title.textContent = stepWords(bar, steps.length)
    const target = svg("rect", { class: "la-column", ...column })
    const group = svg("g", {}, title, target, mark)
    group.addEventListener("click", () => onPick(bar.frame))
    return group
  })
  const y = `${100 - Math.min((motion / scale) * 100, 100)}%`
  const median = svg("line", { class: "la-median", x1: "0", x2: "100%", y1: y, y2: y })
  plot.replaceChildren(...groups, median)
  let marked = null
  return (frame) => {
    marked?.classList.remove("la-now")
    marked = marks.get(frame) ?? null
    marked?.classList.add("la-now")
  }
}

function stepWords({ frame, seam, step }, count) {
  const values = { from: frame + 1, to: seam ? 1 : frame + 2, count, value: step.toFixed(2) }
  return say(seam ? "seam_step" : "step", values)
}
