// A canvas that plays a sheet of frames as a loop.

import { html } from "./dom.js"
import { advance, cellOf, wrap } from "./sheet.js"

/**
 * Plays frames; it has no controls. It draws only while visible, and stops by itself once its element
 * is removed from the page, so it needs no dispose method.
 */
export class LoopStage {
  /** @param {(frame: number) => void} onFrame called when another frame is shown. */
  constructor(onFrame = () => {}) {
    this.canvas = html("canvas", { class: "la-canvas" })
    this.playing = false
    this.speed = 1
    this.sheet = null
    this.picture = null
    this.onFrame = onFrame
    this.position = 0
    this.shown = -1
    this.request = 0
    this.before = null
    this.tick = this.tick.bind(this)
    this.visible = false
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting
      this.schedule()
    }).observe(this.canvas)
  }

  /** Show another sheet. Keeps the position if the new clip has the same number of frames. */
  show(sheet, picture) {
    if (sheet.frames !== this.sheet?.frames) this.position = 0
    this.sheet = sheet
    this.picture = picture
    if (this.canvas.width !== sheet.width) this.canvas.width = sheet.width
    if (this.canvas.height !== sheet.height) this.canvas.height = sheet.height
    this.shown = -1
    this.draw()
    this.schedule()
  }

  clear() {
    this.sheet = this.picture = null
    this.position = 0
    this.shown = -1
    this.canvas.width = this.canvas.height = 1
  }

  get frame() {
    return Math.floor(this.position)
  }

  play(on) {
    this.playing = on
    this.schedule()
  }

  /** Go to a frame; indices out of range wrap around. */
  seek(frame) {
    if (!this.sheet) return
    this.position = wrap(Math.trunc(frame), this.sheet.frames)
    this.draw()
  }

  /** Draw the first frame over the last: with `share` 0 only the last is visible, with 1 only the first. */
  overlay(share) {
    if (!this.sheet) return
    this.shown = -1
    this.paint(this.sheet.frames - 1, 1)
    this.paint(0, share)
  }

  schedule() {
    const moving = this.playing && this.visible && this.sheet
    if (!moving) {
      cancelAnimationFrame(this.request)
      this.request = 0
      this.before = null
    } else if (!this.request) {
      this.request = requestAnimationFrame(this.tick)
    }
  }

  tick(now) {
    this.request = 0
    const elapsed = this.before === null ? 0 : now - this.before
    this.before = now
    const { fps, frames } = this.sheet
    this.position = advance(this.position, elapsed, fps * this.speed, frames)
    this.draw()
    this.schedule()
  }

  draw() {
    if (!this.sheet || this.frame === this.shown) return
    this.shown = this.frame
    this.paint(this.frame, 1)
    this.onFrame(this.frame)
  }

  paint(frame, opacity) {
    const cell = cellOf(this.sheet, frame)
    const context = this.canvas.getContext("2d")
    context.globalAlpha = opacity
    const { x, y, width, height } = cell
    context.drawImage(this.picture, x, y, width, height, 0, 0, width, height)
  }
}

/** Whether the user prefers reduced motion, so that loops must not start by themselves. */
export function wantsStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches
}

/** Load a picture; rejects if it is missing or broken. */
export function loadPicture(url) {
  return new Promise((resolve, reject) => {
    const picture = new Image()
    picture.onload = () => resolve(picture)
    picture.onerror = () => reject(new Error(`no picture at ${url.slice(0, 200)}`))
    picture.src = url
  })
}
