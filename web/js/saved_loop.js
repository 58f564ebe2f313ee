// ComfyUI shows a saved video in its node without playing it. This starts it.

const TRIES = 40
const PAUSE_MS = 250

/**
 * Play a video, muted, as soon as the page has created it.
 *
 * @param {() => HTMLVideoElement | null | undefined} find looks for the element; the page creates it
 *   some time after the run.
 */
export function playOnceShown(find, tries = TRIES) {
  const video = find()
  if (video) {
    video.muted = video.loop = true
    video.play().catch(() => {}) // the browser may refuse; its play button still works
  } else if (tries > 0) {
    setTimeout(() => playOnceShown(find, tries - 1), PAUSE_MS)
  }
}

/** The video element in a node that shows this file, in classic and in Vue nodes. */
export function videoOf(node, filename) {
  const places = [node.videoContainer, document.querySelector(`[data-node-id="${node.id}"]`)]
  const videos = places.flatMap((place) => [...(place?.querySelectorAll("video") ?? [])])
  return videos.find(({ currentSrc, src }) => (currentSrc || src).includes(encodeURIComponent(filename)))
}
