// Picture files that are dropped on the page, where ComfyUI has no use for them: on Load Picture From Folder,
// and beside the nodes of a template.

import { findNode } from "./graph.js"
import { say } from "./words.js"

const OWN_PICTURE = "Your picture" // the title, in the templates, of the Load Image that takes one's own picture
const PICTURES = /\.(png|jpe?g|webp|bmp|tiff?|gif|avif)$/i // as in loopanimate_core/picture/folder.py

/**
 * Make a Load Picture From Folder take dropped pictures: they become a new folder, which is chosen.
 *
 * @param {(name: string, file: File) => Promise<void>} upload puts a file into a subfolder of ComfyUI's input folder.
 * @param {(words: string) => void} complain
 */
export function takePictures(node, upload, complain) {
  node.onDragOver = (event) => [...(event?.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file")
  node.onDragDrop = (event) => {
    const files = picturesIn(event)
    if (!files.length) return false // ComfyUI opens workflows
    fillFolder(node, files, upload).catch((error) => complain(say("not_uploaded", { reason: error.message })))
    return true
  }
}

async function fillFolder(node, files, upload) {
  const name = newFolder(new Date())
  for (const file of files) await upload(name, file) // one by one: a folder of photographs is large
  choose(node, `input/${name}`)
}

/** Select a folder, from its first picture. */
function choose(node, value) {
  const widget = (name) => node.widgets.find((candidate) => candidate.name === name)
  const folder = widget("folder")
  const known = folder.options?.values
  if (Array.isArray(known) && !known.includes(value)) known.push(value)
  for (const [changed, wanted] of [
    [folder, value],
    [widget("index"), 0],
  ]) {
    changed.value = wanted
    changed.callback?.(wanted)
  }
  node.setDirtyCanvas?.(true, true)
}

export function picturesIn(event) {
  return [...(event?.dataTransfer?.files ?? [])].filter(({ name }) => PICTURES.test(name))
}

/** A name that no earlier drop has, and that every file system accepts. */
export function newFolder(now) {
  const two = (number) => String(number).padStart(2, "0")
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-")
  return `dropped ${day} ${[now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join(".")}`
}

/**
 * Give a photograph that is dropped beside it to the template's own picture. Without this, ComfyUI says
 * that it finds no workflow in it, or adds a node that is connected to nothing. Only JPEG, which never holds a
 * workflow: other pictures may, so they are left to ComfyUI.
 */
export function takePhotos(app) {
  const listen = (event) => {
    const node = photoIn(event) && nobodyTakes(app, event) && ownPicture(app.canvas.graph?.nodes)
    if (!node) return
    event.preventDefault()
    event.stopImmediatePropagation()
    node.onDragDrop(event)
  }
  document.addEventListener("drop", listen, { capture: true })
  document.addEventListener("dragover", (event) => {
    if (event.target.closest?.(".loopanimate")) event.preventDefault() // or our panels let the browser open the file
  })
}

/** Whether a drop is on the canvas, or on a node that has no use for files. */
function nobodyTakes(app, event) {
  const { canvas, graph } = app.canvas ?? {}
  const vueNode = event.target.closest?.("[data-node-id]")
  if (vueNode) return !findNode(graph, vueNode.dataset.nodeId)?.onDragDrop
  if (event.target !== canvas && !event.target.closest?.(".dom-widget")) return false
  return !graph?.getNodeOnPos(...app.canvas.convertEventToCanvasOffset(event))?.onDragDrop
}

function photoIn(event) {
  const files = event.dataTransfer?.files ?? []
  return files.length === 1 && files[0].type === "image/jpeg"
}

/** The one node that a template calls so, if there is one. */
export function ownPicture(nodes) {
  const found = (nodes ?? []).filter(
    (node) => node.type === "LoadImage" && node.title === OWN_PICTURE && node.onDragDrop,
  )
  return found.length === 1 ? found[0] : null
}
