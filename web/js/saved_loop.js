// ComfyUI shows a saved loop in its node: a video without playing it, a small picture as a stamp. This starts the
// video, and makes the picture as large as the node.

const PREVIEW = "$$comfy_animation_preview" // ComfyUI's name for its widget with animated pictures
const TRIES = 40
const PAUSE_MS = 250

/**
 * Do something with what ComfyUI shows, as soon as it is there: some time after the run.
 *
 * @template T
 * @param {() => T | null | undefined} find
 * @param {(found: T) => void} action
 */
export function onceShown(find, action, tries = TRIES) {
  const found = find()
  if (found) action(found)
  else if (tries > 0) setTimeout(() => onceShown(find, action, tries - 1), PAUSE_MS)
}

/** Play a video, muted. */
export function play(video) {
  video.muted = video.loop = true
  video.play().catch(() => {}) // the browser may refuse; its play button still works
}

/** The element of a node that holds its animated picture, in classic nodes. */
export function pictureOf(node) {
  return node.widgets?.find(({ name }) => name === PREVIEW)?.element
}

/** Make the pictures in an element as large as it is; ComfyUI enlarges none. */
export function fill(element) {
  element.classList.add("la-fill")
}

/** The video element in a node that shows this file, in classic and in Vue nodes. */
export function videoOf(node, filename) {
  const places = [node.videoContainer, document.querySelector(`[data-node-id="${node.id}"]`)]
  const videos = places.flatMap((place) => [...(place?.querySelectorAll("video") ?? [])])
  return videos.find(({ currentSrc, src }) => (currentSrc || src).includes(encodeURIComponent(filename)))
}
