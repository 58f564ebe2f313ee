// A sheet holds the frames of a loop in one picture, row by row. These functions tell which frame is
// where on the sheet, and which one to show when. No DOM, no state.

/** Position and size of frame `index` on its sheet, in pixels. */
export function cellOf(sheet, index) {
  const row = Math.floor(index / sheet.columns)
  return {
    x: (index % sheet.columns) * sheet.width,
    y: row * sheet.height,
    width: sheet.width,
    height: sheet.height,
  }
}

/** `index` wrapped to 0 … frames - 1: -1 is the last frame. */
export function wrap(index, frames) {
  return ((index % frames) + frames) % frames
}

const LONGEST_GAP_MS = 250 // a page that was suspended continues where it was instead of skipping ahead

/** The playback position, in frames, after `elapsedMs` at `fps` frames per second. */
export function advance(position, elapsedMs, fps, frames) {
  const gap = Math.min(Math.max(elapsedMs, 0), LONGEST_GAP_MS)
  return wrap(position + (gap / 1000) * fps, frames)
}

/**
 * Reads the server's description of a sheet; null if it cannot be played.
 *
 * @param {object} data `{columns, frames, width, height, fps}`: counts, pixels of one frame, frames
 *   per second.
 */
export function readSheet(data) {
  const sheet = {}
  for (const key of ["columns", "frames", "width", "height"]) {
    sheet[key] = Math.trunc(Number(data?.[key]))
    if (!(sheet[key] >= 1)) return null
  }
  const fps = Number(data.fps)
  return { ...sheet, fps: fps > 0 && Number.isFinite(fps) ? fps : 8 }
}
