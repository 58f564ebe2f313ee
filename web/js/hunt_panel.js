// The panel of Seed Hunt: drafts that play side by side; a click chooses one.

import { html } from "./dom.js"
import { LoopStage, loadPicture, wantsStill } from "./loop_stage.js"
import { readSheet } from "./sheet.js"
import { say } from "./words.js"

export class HuntPanel {
  /**
   * @param {(file: object) => string} fileAddress the address of a file that the server describes.
   * @param {(number: number) => void} onPick called with the number of a draft, from 1; 0 for none.
   */
  constructor(fileAddress, onPick) {
    this.fileAddress = fileAddress
    this.onPick = onPick
    this.hint = html("div", { class: "la-hunt-hint" }, say("hunt_hint"))
    this.grid = html("div", { class: "la-hunt-grid", role: "group", "aria-label": say("hunt_drafts") })
    this.element = html("div", { class: "loopanimate la-hunt" }, this.grid, this.hint)
    this.buttons = []
  }

  /** @param {{drafts: object[]}} entry as in nodes/seed_hunt.py. */
  async show(entry) {
    const cells = await Promise.all(entry.drafts.map((draft) => this.cell(draft)))
    this.buttons = cells
    this.buttons.forEach((button, index) => {
      button.addEventListener("click", () => this.choose(button, index + 1))
    })
    this.grid.replaceChildren(...this.buttons)
    this.mark(0)
  }

  /** Mark a draft as chosen, by number; the widget may have been set by hand. */
  mark(number) {
    if (!this.buttons.length) return
    this.buttons.forEach((button, index) => {
      button.setAttribute("aria-pressed", String(index + 1 === number))
    })
    const chosen = this.buttons[number - 1]
    this.hint.textContent = say(chosen ? "hunt_chosen" : "hunt_choose", { seed: chosen?.dataset.seed })
  }

  choose(button, number) {
    const pick = button.getAttribute("aria-pressed") === "true" ? 0 : number
    this.mark(pick)
    this.onPick(pick)
  }

  async cell(draft) {
    const verdict = draft.verdict === "seamless" ? say("seamless") : say("not_seamless")
    const words = `${draft.seed} · ${verdict}`
    const label = html("span", { class: "la-hunt-label" }, words)
    const button = html("button", { type: "button", "aria-pressed": "false", title: words, "data-seed": draft.seed })
    const sheet = readSheet(draft)
    const picture = sheet && (await loadPicture(this.fileAddress(draft.sheet)).catch(() => null))
    if (picture) {
      const stage = new LoopStage()
      stage.show(sheet, picture)
      stage.play(!wantsStill())
      button.append(stage.canvas)
      for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => stage.play(true))
    } else {
      label.textContent = `${words} · ${say("no_frames")}`
    }
    button.append(label)
    return button
  }
}
