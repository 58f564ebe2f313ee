// The panel of the Loop Sampler node: an animated preview while it samples.

import { html } from "./dom.js"
import { LoopStage, loadPicture, wantsStill } from "./loop_stage.js"
import { readSheet } from "./sheet.js"
import { say } from "./words.js"

export class PreviewPanel {
  constructor() {
    this.stage = new LoopStage()
    this.words = html("span")
    this.bar = html("div", { class: "la-progress" })
    this.element = html(
      "div",
      { class: "loopanimate la-preview", hidden: "" },
      html("div", { class: "la-screen" }, this.stage.canvas),
      html("div", { class: "la-caption" }, this.bar, this.words),
    )
    this.latest = null
    this.prompt = null
    this.done = this.steps = 0
  }

  get active() {
    return this.latest !== null
  }

  /** @param {object} data of a "loopanimate.preview" event. Resolves once it is visible. */
  async show(data) {
    const sheet = readSheet(data)
    if (!sheet) return
    this.latest = data
    this.prompt = data.prompt_id ?? null
    const picture = await loadPicture(data.sheet).catch(() => null)
    if (!picture || this.latest !== data) return // cleared, or replaced by a newer one
    this.element.hidden = false
    this.stage.show(sheet, picture)
    if (!this.stage.playing) this.stage.play(!wantsStill())
    this.step(data.step, data.steps)
  }

  /** Say how far sampling is; progress comes more often than pictures, and never goes back. */
  step(step, steps) {
    if (!this.active || !(steps > 0) || (steps === this.steps && step < this.done)) return
    this.done = step
    this.steps = steps
    this.words.textContent = say("progress", { step, steps })
    this.bar.style.setProperty("--la-share", `${(100 * step) / steps}%`)
  }

  clear() {
    this.latest = this.prompt = null
    this.done = this.steps = 0
    this.element.hidden = true
    this.stage.play(false)
    this.stage.clear()
  }
}
