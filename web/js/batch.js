// A batch of pictures: which are done, which are left, and the prompt of each. No DOM.

/** What is known of the pictures of one folder, from the first run to the last. */
export class Batch {
  /** @param {[string, {state: string, run?: string, reason?: string}][]} saved of an earlier batch, as from `saved()`. */
  constructor(saved = []) {
    this.pictures = new Map(saved)
  }

  begin(names) {
    this.pictures = new Map(names.map((name) => [name, { state: "left" }]))
  }

  queued(name, run) {
    this.pictures.set(name, { state: "queued", run })
  }

  /** The server did not take a picture's run. */
  refused(name, reason) {
    this.pictures.set(name, { state: "failed", reason })
  }

  /**
   * A run has ended; runs of others are ignored.
   *
   * @param {"done" | "failed" | "left"} state "left" for a run that was stopped or removed from the queue.
   * @returns {boolean} whether it was one of ours.
   */
  ended(run, state, reason = "") {
    const [name] = [...this.pictures].find(([, entry]) => entry.state === "queued" && entry.run === run) ?? []
    if (name === undefined) return false
    this.pictures.set(name, { state, reason })
    return true
  }

  runs() {
    return [...this.pictures.values()].filter(({ state }) => state === "queued").map(({ run }) => run)
  }

  /** Names that have no loop yet, and no run that would make it. */
  rest() {
    return [...this.pictures].filter(([, { state }]) => state === "left" || state === "failed").map(([name]) => name)
  }

  failures() {
    return [...this.pictures].filter(([, { state }]) => state === "failed").map(([name, { reason }]) => `${name}: ${reason}`)
  }

  count() {
    const done = [...this.pictures.values()].filter(({ state }) => state === "done").length
    return { done, total: this.pictures.size, failed: this.failures().length, left: this.rest().length }
  }

  saved() {
    return [...this.pictures]
  }
}

/**
 * A prompt for picture `index` of the folder of node `id`: in the graph that is sent, and in the workflow that is
 * saved with the result.
 *
 * @param {object[]} seeds as from `seedsIn`; `position` in the batch decides the seeds that count on.
 */
export function promptFor(prompt, id, index, seeds = [], position = 0) {
  const own = structuredClone(prompt)
  setValue(own, id, "index", 1, index)
  for (const seed of seeds) setValue(own, seed.id, seed.name, seed.slot, seedFor(seed, position))
  return own
}

function setValue({ output, workflow }, id, name, slot, value) {
  output[id].inputs[name] = value
  const node = workflow?.nodes?.find((candidate) => String(candidate.id) === id)
  if (node?.widgets_values) node.widgets_values[slot] = value
}

/** What "control after generate" makes of a seed: a batch is queued at once, so the page does not do it. */
function seedFor({ how, value, max }, position) {
  if (how === "increment") return Math.min(value + position, max)
  if (how === "decrement") return Math.max(value - position, 0)
  return Math.floor(Math.random() * max)
}

/** State and reason of a run from its entry in ComfyUI's history; one that is not there was never run. */
export function endOf(status) {
  if (status?.status_str === "success") return ["done"]
  const [, error] = status?.messages?.find(([kind]) => kind === "execution_error") ?? []
  return error ? ["failed", String(error.exception_message).trim()] : ["left"]
}

const EXACT = 2 ** 50 // a JavaScript number holds all whole numbers up to here, as in ComfyUI's own page

/**
 * The settings of a prompt that change from run to run.
 *
 * @param {object} output the graph in API format.
 * @param {(id: string) => object | null} find a node by its id there.
 * @param {string} folder the id of the node whose index the batch sets itself.
 */
export function seedsIn(output, find, folder) {
  return Object.entries(output).flatMap(([id, { inputs }]) => {
    const { widgets = [] } = find(id) ?? {}
    const control = widgets.findIndex(({ name }) => name === "control_after_generate")
    const widget = widgets[control - 1]
    const how = widgets[control]?.value
    if (id === folder || !widget || how === "fixed" || typeof inputs[widget.name] !== "number") return []
    const max = Math.min(widget.options?.max ?? EXACT, EXACT)
    return [{ id, name: widget.name, slot: control - 1, how, value: inputs[widget.name], max }]
  })
}
