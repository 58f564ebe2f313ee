// ComfyUI shows a saved video in its node but leaves it standing: a loop should be seen looping.

const TRIES = 40
const PAUSE_MS = 250

/**
 * Start a video, without its sound, as soon as the page has it.
 *
 * @param {() => HTMLVideoElement | null | undefined} find looks for it; the page makes it some time
 *   after the run.
 */
export function playOnceShown(find, tries = TRIES) {
  const video = find()
  if (video) {
    video.muted = video.loop = true
    video.play().catch(() => {}) // a browser may refuse; its own button is there
  } else if (tries > 0) {
    setTimeout(() => playOnceShown(find, tries - 1), PAUSE_MS)
  }
}

/** The video of a node that shows the file of that name, in classic and in Vue nodes. */
export function videoOf(node, filename) {
  const places = [node.videoContainer, document.querySelector(`[data-node-id="${node.id}"]`)]
  const videos = places.flatMap((place) => [...(place?.querySelectorAll("video") ?? [])])
  return videos.find(({ currentSrc, src }) => (currentSrc || src).includes(encodeURIComponent(filename)))
}
