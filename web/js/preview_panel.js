// The panel of the Loop Sampler node: an animated preview while it samples.

import { html } from "./dom.js"
import { LoopStage, loadPicture, wantsStill } from "./loop_stage.js"
import { readSheet } from "./sheet.js"

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
    this.words.textContent = `Step ${data.step} of ${data.steps}`
    this.bar.style.setProperty("--la-share", `${(100 * data.step) / data.steps}%`)
  }

  clear() {
    this.latest = this.prompt = null
    this.element.hidden = true
    this.stage.play(false)
    this.stage.clear()
  }
}
