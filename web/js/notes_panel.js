// The panel of nodes that have something to say about their settings.

import { html, icon } from "./dom.js"
import { say } from "./words.js"

export class NotesPanel {
  constructor() {
    this.element = html("div", { class: "loopanimate la-notes", role: "status", hidden: "" })
    this.count = 0
  }

  get active() {
    return this.count > 0
  }

  /** @param {{key: string}[]} notes as in nodes/build_loop_conditions.py; none hides the panel. */
  show(notes) {
    const words = [...new Set((notes ?? []).map((note) => say(`note_${note.key}`, note)))].filter(Boolean)
    this.count = words.length
    this.element.replaceChildren(
      ...words.map((text) => html("div", { class: "la-note" }, icon("failed"), html("span", {}, text))),
    )
    this.element.hidden = !words.length
  }
}
