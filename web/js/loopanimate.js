// LoopAnimate's extension of ComfyUI's page: connects panels to nodes and events.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

import { endOf, promptFor, seedsIn } from "./batch.js"
import { BatchPanel } from "./batch_panel.js"
import { CheckPanel } from "./check_panel.js"
import { takePhotos, takePictures } from "./dropping.js"
import { findNode } from "./graph.js"
import { HuntPanel } from "./hunt_panel.js"
import { wantsStill } from "./loop_stage.js"
import { NotesPanel } from "./notes_panel.js"
import { PreviewPanel } from "./preview_panel.js"
import { fill, onceShown, pictureOf, play, videoOf } from "./saved_loop.js"
import { say, speak } from "./words.js"

const BUILD = "LoopAnimate_BuildLoopConditions"
const CHECK = "LoopAnimate_LoopCheck"
const SAMPLER = "LoopAnimate_LoopSampler"
const FOLDER = "LoopAnimate_LoadPictureFromFolder"
const HUNT = "LoopAnimate_SeedHunt"
const SAVE = "LoopAnimate_SaveLoop"
const CHECK_HEIGHT_PX = 380
const CHECK_WIDTH_PX = 320
const PREVIEW_HEIGHT_PX = 240
const NOTES_HEIGHT_PX = 84
const HUNT_HEIGHT_PX = 300
const BATCH_HEIGHT_PX = 96

const panels = new WeakMap() // node -> its panel
const batches = new Set() // panels whose runs may not have ended
const previews = new Map() // node with a visible preview -> its height before and with it, in pixels

app.registerExtension({
  name: "loopanimate.loops",

  init() {
    speak(app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? navigator.language)
    const style = document.createElement("link")
    style.rel = "stylesheet"
    style.href = new URL("./loopanimate.css", import.meta.url).href
    document.head.append(style)
  },

  setup() {
    api.addEventListener("loopanimate.preview", ({ detail }) => showPreview(detail))
    api.addEventListener("progress", ({ detail }) => showProgress(detail))
    api.addEventListener("progress_state", ({ detail }) => clearFinished(detail))
    api.addEventListener("execution_error", ({ detail }) => showStop(detail))
    api.addEventListener("execution_success", ({ detail }) => endRun(detail, "done"))
    api.addEventListener("execution_error", ({ detail }) => endRun(detail, "failed", detail?.exception_message))
    api.addEventListener("execution_interrupted", ({ detail }) => endRun(detail, "left"))
    api.addEventListener("status", ({ detail }) => {
      if (detail?.exec_info?.queue_remaining === 0) batches.forEach(settle) // the queue may have been cleared
    })
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(end, ({ detail }) => clearPreviews(detail?.prompt_id))
    }
    takePhotos(app)
    api.addEventListener("reconnected", () => clearPreviews()) // events during the interruption are lost
  },

  nodeCreated(node) {
    if (node.comfyClass === CHECK) addCheck(node)
    if (node.comfyClass === SAMPLER) addPreview(node)
    if (node.comfyClass === BUILD) addNotes(node)
    if (node.comfyClass === SAVE) whenExecuted(node, showSaved)
    if (node.comfyClass === FOLDER) {
      addBatch(node)
      takePictures(node, upload, complain)
    }
    if (node.comfyClass === HUNT) addHunt(node)
  },

  // Called when undo, a switch of workflow tabs or a run chosen from the queue restores results.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs ?? {})) {
      if (output?.loopanimate_check) showCheck(findNode(rootGraph(), id), output)
      if (output?.loopanimate_hunt) showHunt(findNode(rootGraph(), id), output)
    }
  },
})

function rootGraph() {
  return app.rootGraph ?? app.graph
}

function addCheck(node) {
  const panel = new CheckPanel(fileAddress)
  panels.set(node, panel)
  addPanel(node, "loop", panel.element, { getMinHeight: () => CHECK_HEIGHT_PX })
  panel.element.style.minHeight = `${CHECK_HEIGHT_PX - 20}px`
  node.setSize([Math.max(node.size[0], CHECK_WIDTH_PX), node.computeSize()[1]])
  whenExecuted(node, showCheck)
}

function whenExecuted(node, action) {
  const { onExecuted } = node
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments)
    action(this, output)
  }
}

function showSaved(node, output) {
  const file = output?.animated?.[0] && output.images?.[0]
  if (!file) return
  if (/\.(webp|png)$/.test(file.filename)) onceShown(() => pictureOf(node), fill)
  else if (!wantsStill()) onceShown(() => videoOf(node, file.filename), play)
}

/** Put a file into a subfolder of ComfyUI's input folder. */
async function upload(subfolder, file) {
  const body = new FormData()
  body.append("image", file)
  body.append("subfolder", subfolder)
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) throw new Error(`${file.name}: ${answer.status} ${answer.statusText}`)
}

function complain(words) {
  app.extensionManager?.toast?.add({ severity: "error", summary: "LoopAnimate", detail: words })
}

function addPreview(node) {
  const panel = new PreviewPanel()
  panels.set(node, panel)
  addPanel(node, "preview", panel.element, {
    getMinHeight: () => (panel.active ? PREVIEW_HEIGHT_PX : 0),
    getMaxHeight: () => (panel.active ? undefined : 0),
  })
}

function addNotes(node) {
  const panel = new NotesPanel()
  const height = () => (panel.active ? NOTES_HEIGHT_PX : 0)
  addPanel(node, "notes", panel.element, { getMinHeight: height, getMaxHeight: height })
  whenExecuted(node, (executed, output) => {
    const before = panel.active
    panel.show(output?.loopanimate_notes)
    if (panel.active === before) return
    const change = panel.active ? NOTES_HEIGHT_PX : -NOTES_HEIGHT_PX
    executed.setSize([executed.size[0], executed.size[1] + change])
    executed.setDirtyCanvas?.(true, true)
  })
}

function addHunt(node) {
  const pick = () => node.widgets.find((widget) => widget.name === "pick")
  const panel = new HuntPanel(fileAddress, (number) => {
    pick().value = number
    node.setDirtyCanvas?.(true, true)
  })
  panels.set(node, panel)
  addPanel(node, "drafts", panel.element, { getMinHeight: () => HUNT_HEIGHT_PX })
  node.setSize([Math.max(node.size[0], CHECK_WIDTH_PX), node.computeSize()[1]])
  const widget = pick()
  const { callback } = widget
  widget.callback = function (value) {
    callback?.apply(this, arguments)
    panel.mark(value)
  }
  whenExecuted(node, showHunt)
}

async function showHunt(node, output) {
  const entry = output?.loopanimate_hunt?.at(-1)
  if (!entry || node?.comfyClass !== HUNT) return
  const panel = panels.get(node)
  await panel.show(entry)
  panel.mark(node.widgets.find((widget) => widget.name === "pick")?.value)
}

function addBatch(node) {
  goThroughInOrder(node)
  const panel = new BatchPanel((wanted) => runAll(node, panel, wanted))
  const widget = node.widgets.find(({ name }) => name === "folder")
  const { callback } = widget
  const look = () => {
    panel.look(widget.value)
    batches.add(panel)
    settle(panel)
  }
  widget.callback = function () {
    callback?.apply(this, arguments)
    look()
  }
  setTimeout(look, 0) // a saved workflow's folder is set after this
  addPanel(node, "batch", panel.element, {
    getMinHeight: () => BATCH_HEIGHT_PX,
    getMaxHeight: () => BATCH_HEIGHT_PX,
  })
}

/** Queue one run for each picture of the folder, or for some of them, with everything else as it is on the canvas. */
async function runAll(node, panel, wanted) {
  const folder = node.widgets.find((widget) => widget.name === "folder").value
  const answer = await api.fetchApi(`/loopanimate/pictures?${new URLSearchParams({ folder })}`)
  const { names, error } = await answer.json()
  if (error) throw new Error(error)
  const prompt = await app.graphToPrompt()
  const id = String(node.id)
  if (!prompt.output[id]) throw new Error(say("batch_not_used"))
  const seeds = seedsIn(prompt.output, (other) => findNode(rootGraph(), other), id)
  panel.look(folder)
  if (!wanted) panel.begin(names)
  batches.delete(panel) // until all are queued, an empty queue says nothing
  for (const [index, name] of names.entries()) {
    if (wanted && !wanted.includes(name)) continue
    try {
      const { prompt_id: run } = await api.queuePrompt(0, promptFor(prompt, id, index, seeds, index))
      panel.change((batch) => batch.queued(name, run))
    } catch (refusal) {
      panel.change((batch) => batch.refused(name, refusal?.response?.error?.message ?? refusal.message))
    }
  }
  batches.add(panel)
  await settle(panel)
}

function endRun(detail, state, reason) {
  for (const panel of batches) panel.change((batch) => batch.ended(detail?.prompt_id, state, reason))
}

/** Ask the server for runs that have ended without an event: in another page, or by clearing the queue. */
async function settle(panel) {
  const runs = panel.batch.runs()
  if (!runs.length) return
  const queue = await (await api.fetchApi("/queue")).json()
  const waiting = new Set([...queue.queue_running, ...queue.queue_pending].map(([, run]) => run))
  for (const run of runs.filter((each) => !waiting.has(each))) {
    const { [run]: entry } = await (await api.fetchApi(`/history/${run}`)).json()
    panel.change((batch) => batch.ended(run, ...endOf(entry?.status)))
  }
}

/** The page's default is a random picture per run. A saved workflow's value is set after this. */
function goThroughInOrder(node) {
  const control = node.widgets?.find((widget) => widget.name === "control_after_generate")
  if (control) control.value = "increment"
}

function addPanel(node, name, element, options) {
  // Both are needed: the option keeps the widget out of the prompt, the property out of the saved workflow.
  const settings = { serialize: false, hideOnZoom: false, ...options }
  const widget = node.addDOMWidget(name, "loopanimate", element, settings)
  widget.serialize = false
  element.addEventListener("wheel", passOn, { passive: false })
}

/** Classic nodes: panels are in front of the canvas, so pass the wheel on for zooming. */
function passOn(event) {
  if (!event.currentTarget.closest(".dom-widget")) return // Vue nodes do this by themselves
  event.preventDefault()
  app.canvas.processMouseWheel?.(event)
}

function showCheck(node, output) {
  const entry = output?.loopanimate_check?.at(-1)
  if (entry && node?.comfyClass === CHECK) panels.get(node)?.show(entry)
}

function showStop({ node_id: id, exception_message: message }) {
  const node = findNode(rootGraph(), id)
  if (node?.comfyClass === CHECK) panels.get(node)?.stop(message)
}

function showPreview(data) {
  const node = findNode(rootGraph(), data?.node)
  if (node?.comfyClass !== SAMPLER || !panels.has(node)) return
  const panel = panels.get(node)
  const first = !panel.active
  panel.show(data)
  if (!first || !panel.active) return
  const height = node.size[1]
  node.setSize([node.size[0], Math.max(height, node.computeSize()[1])])
  previews.set(node, { before: height, grown: node.size[1] })
}

function showProgress({ value, max, node: id, prompt_id: prompt }) {
  const node = previews.size ? findNode(rootGraph(), id) : null
  const panel = previews.has(node) ? panels.get(node) : null
  if (panel && (!prompt || !panel.prompt || panel.prompt === prompt)) panel.step(value, max)
}

/** Remove the node's preview and restore its size, however the run ended. */
function clearPreview(node) {
  const { before, grown } = previews.get(node)
  previews.delete(node)
  panels.get(node).clear()
  if (!node.graph) return // the node was removed
  if (node.size[1] === grown) node.setSize([node.size[0], before]) // otherwise the user has resized it
  node.setDirtyCanvas?.(true, true)
}

function clearPreviews(prompt) {
  for (const node of [...previews.keys()]) {
    const shown = panels.get(node).prompt
    if (!prompt || !shown || shown === prompt) clearPreview(node)
  }
}

function clearFinished({ nodes }) {
  for (const [id, progress] of Object.entries(nodes ?? {})) {
    if (progress.state !== "finished" && progress.state !== "error") continue
    const node = previews.size ? findNode(rootGraph(), id) : null
    if (previews.has(node)) clearPreview(node)
  }
}

function fileAddress(file) {
  return api.apiURL(`/view?${new URLSearchParams(file)}`)
}
