// The panel of Load Picture From Folder: one run for each picture of the folder, and how they went.

import { Batch } from "./batch.js"
import { html } from "./dom.js"
import { say } from "./words.js"

const KEY = "loopanimate.batch " // and the folder: what is left of its batch, in this browser

export class BatchPanel {
  /** @param {(wanted: string[] | null) => Promise<void>} onStart called with the names to run; null is all of the folder. */
  constructor(onStart) {
    this.batch = new Batch()
    this.folder = null
    this.all = this.button(say("batch_start"), () => onStart(null))
    this.rest = this.button("", () => onStart(this.batch.rest()))
    this.words = html("div", { class: "la-batch-words", role: "status" })
    const buttons = html("div", { class: "la-batch-buttons" }, this.all, this.rest)
    this.element = html("div", { class: "loopanimate la-batch" }, buttons, this.words)
    this.show()
  }

  button(words, action) {
    const button = html("button", { type: "button", class: "la-batch-button" }, words)
    button.addEventListener("click", async () => {
      this.all.disabled = this.rest.disabled = true
      try {
        await action()
      } catch (error) {
        this.words.textContent = String(error?.message ?? error)
      } finally {
        this.all.disabled = this.rest.disabled = false
      }
    })
    return button
  }

  /** The folder that is chosen: an unfinished batch of it is taken up again, even after the page was closed. */
  look(folder) {
    if (folder === this.folder) return
    this.folder = folder
    this.batch = new Batch(JSON.parse(localStorage.getItem(KEY + folder) ?? "[]"))
    this.show()
  }

  begin(names) {
    this.change((batch) => batch.begin(names))
  }

  /** Change the batch, show how it stands, and remember it until all is done. */
  change(action) {
    if (action(this.batch) === false) return
    this.show()
    const { done, total } = this.batch.count()
    if (done === total) localStorage.removeItem(KEY + this.folder)
    else localStorage.setItem(KEY + this.folder, JSON.stringify(this.batch.saved()))
  }

  show() {
    const count = this.batch.count()
    this.words.textContent = count.total ? say(count.failed ? "batch_failed" : "batch_done", count) : ""
    const failures = this.batch.failures().join("\n")
    this.words.title = failures
    if (failures) this.words.append(html("pre", {}, failures))
    this.rest.hidden = !count.left
    this.rest.textContent = say("batch_rest", count)
  }
}
