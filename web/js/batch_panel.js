// The panel of Load Picture From Folder: one run for each picture of the folder, and how they went.

import { html } from "./dom.js"
import { say } from "./words.js"

export class BatchPanel {
  /** @param {() => Promise<void>} onStart called when the button is pressed. */
  constructor(onStart) {
    this.button = html("button", { type: "button", class: "la-batch-button" }, say("batch_start"))
    this.words = html("div", { class: "la-batch-words", role: "status" })
    this.element = html("div", { class: "loopanimate la-batch" }, this.button, this.words)
    this.runs = new Map() // prompt id -> name of its picture, as long as it has not ended
    this.failed = []
    this.total = this.done = 0
    this.button.addEventListener("click", async () => {
      this.button.disabled = true
      try {
        await onStart()
      } catch (error) {
        this.words.textContent = String(error?.message ?? error)
      } finally {
        this.button.disabled = false
      }
    })
  }

  /** A new batch; runs of an earlier one are still counted as long as they have not ended. */
  begin() {
    if (this.runs.size) return
    this.failed = []
    this.total = this.done = 0
  }

  queued(prompt, name) {
    this.runs.set(prompt, name)
    this.total += 1
    this.say()
  }

  /** A picture whose run the server did not take. */
  refused(name, reason) {
    this.total += 1
    this.done += 1
    this.failed.push(`${name}: ${reason}`)
    this.say()
  }

  /** A run has ended, with a reason if it failed; runs of others are ignored. */
  ended(prompt, reason = null) {
    const name = this.runs.get(prompt)
    if (name === undefined) return
    this.runs.delete(prompt)
    this.done += 1
    if (reason) this.failed.push(`${name}: ${reason}`)
    this.say()
  }

  say() {
    const count = { done: this.done - this.failed.length, total: this.total, failed: this.failed.length }
    this.words.textContent = say(this.failed.length ? "batch_failed" : "batch_done", count)
    this.words.title = this.failed.join("\n")
    if (this.failed.length) this.words.append(html("pre", {}, this.failed.join("\n")))
  }
}

/**
 * A prompt for picture `index` of the folder of node `id`: in the graph that is sent, and in the workflow that is
 * saved with the result.
 */
export function promptFor(prompt, id, index) {
  const own = structuredClone(prompt)
  own.output[id].inputs.index = index
  const node = own.workflow?.nodes?.find((candidate) => String(candidate.id) === id)
  if (node?.widgets_values) node.widgets_values[1] = index
  return own
}
