// The panel of the Loop Check node: the loop, its seam chart, the verdict.

import { html, icon, svg } from "./dom.js"
import { LoopPlayer } from "./loop_player.js"
import { loadPicture } from "./loop_stage.js"
import { drawChart } from "./seam_chart.js"
import { readSheet } from "./sheet.js"
import { verdictWords } from "./verdict.js"
import { say } from "./words.js"

export class CheckPanel {
  /** @param {(file: object) => string} addressOf returns the URL of a file in the node's output. */
  constructor(addressOf) {
    this.addressOf = addressOf
    this.latest = null
    this.mark = () => {}
    this.player = new LoopPlayer((frame) => this.mark(frame))
    this.plot = svg("svg", { class: "la-plot", role: "img" })
    this.median = html("span", { class: "la-legend" })
    this.chart = html(
      "figure",
      { class: "la-chart" },
      html("figcaption", {}, html("span", {}, say("chart")), this.median),
      this.plot,
      html(
        "div",
        { class: "la-axis", "aria-hidden": "true" },
        html("span", {}, say("earlier")),
        html("span", { class: "la-seam" }, say("at_seam")),
        html("span", {}, say("later")),
      ),
    )
    this.verdict = html("div", { class: "la-verdict", role: "status" })
    this.element = html(
      "div",
      { class: "loopanimate la-check" },
      this.player.element,
      this.chart,
      this.verdict,
    )
    this.clear()
  }

  clear() {
    this.latest = null
    this.say(say("hint"))
    this.chart.hidden = this.verdict.hidden = true
    this.element.classList.remove("la-passed", "la-failed", "la-stopped")
  }

  /** @param {object} entry of the node's UI output, see nodes/loop_check.py. */
  async show(entry) {
    this.latest = entry
    this.showVerdict(entry)
    this.showChart(entry.report)
    const sheet = readSheet(entry)
    const picture = sheet && (await loadPicture(this.addressOf(entry.sheet)).catch(() => null))
    if (this.latest !== entry) return // a newer run has replaced it
    if (picture) this.player.show(sheet, picture)
    else this.say(say("no_frames"))
  }

  /** The node stopped the run: clear older results, so that they are not taken for its verdict. */
  stop(message) {
    this.clear()
    this.say(say("no_loop"))
    this.showWords("stopped", say("stopped"), String(message ?? "").trim(), "")
  }

  say(words) {
    this.player.say(icon("loop"), html("span", {}, words))
  }

  showVerdict(entry) {
    const { headline, found, advice } = verdictWords(entry)
    this.showWords(entry.passed ? "passed" : "failed", headline, found, advice)
    this.verdict.title = entry.summary ?? ""
  }

  showWords(state, headline, found, advice) {
    for (const name of ["passed", "failed", "stopped"]) {
      this.element.classList.toggle(`la-${name}`, name === state)
    }
    const words = html("div", {}, html("strong", {}, headline), " ", html("span", {}, found))
    if (advice) words.append(html("div", { class: "la-advice" }, advice))
    this.verdict.replaceChildren(icon(state), words)
    this.verdict.hidden = false
  }

  showChart(report) {
    const steps = report?.steps ?? []
    this.chart.hidden = !steps.length
    if (!steps.length) return
    const motion = report.motion ?? 0
    this.median.textContent = say("median", { value: motion.toFixed(motion < 10 ? 1 : 0) })
    const seam = steps.at(-1).toFixed(2)
    const label = say("chart_label", { seam, median: motion.toFixed(2) })
    this.plot.setAttribute("aria-label", label)
    this.mark = drawChart(this.plot, { steps, motion }, (frame) => this.player.seek(frame))
  }
}
