// A player for a loop: play, scrub, speed, and a view that lays the first frame over the last.

import { html, icon } from "./dom.js"
import { LoopStage, wantsStill } from "./loop_stage.js"
import { say } from "./words.js"

const SPEEDS = [0.25, 0.5, 1, 2]

export class LoopPlayer {
  /** @param {(frame: number | null) => void} onFrame called with every frame that is shown. */
  constructor(onFrame = () => {}) {
    this.onFrame = onFrame
    this.comparing = false
    this.frames = 0
    this.stage = new LoopStage((frame) => this.showFrame(frame))
    this.build()
    this.setPlaying(false)
    this.enable(false)
  }

  build() {
    this.notice = html("div", { class: "la-notice" })
    this.badge = html("div", { class: "la-badge", hidden: "" }, say("first_over_last"))
    this.screen = html("div", { class: "la-screen" }, this.stage.canvas, this.notice, this.badge)
    this.screen.addEventListener("click", () => this.toggle())
    this.playButton = button("la-play", () => this.toggle())
    this.slider = html("input", { type: "range", min: "0", max: "0", step: "1", value: "0" })
    this.slider.className = "la-slider"
    this.slider.addEventListener("input", () => this.scrub(Number(this.slider.value)))
    this.counter = html("output", { class: "la-counter" })
    this.speed = html("select", { class: "la-speed", "aria-label": say("speed"), title: say("speed") })
    for (const speed of SPEEDS) {
      const option = html("option", { value: speed }, `${speed}×`)
      option.selected = speed === 1
      this.speed.append(option)
    }
    this.speed.addEventListener("change", () => {
      this.stage.speed = Number(this.speed.value)
    })
    this.seamButton = button("la-compare", () => this.compare(!this.comparing))
    this.seamButton.append(icon("seam"), say("seam"))
    this.seamButton.title = say("seam_help")
    this.controls = html(
      "div",
      { class: "la-controls" },
      this.playButton,
      this.slider,
      this.counter,
      this.speed,
      this.seamButton,
    )
    this.element = html(
      "div",
      { class: "la-player", role: "group", "aria-label": say("player"), tabindex: "0" },
      this.screen,
      this.controls,
    )
    this.element.addEventListener("keydown", (event) => this.onKey(event))
  }

  /** Play a sheet from the start, unless the user prefers reduced motion. */
  show(sheet, picture) {
    this.frames = sheet.frames
    this.notice.replaceChildren()
    this.stage.clear()
    this.enable(true)
    this.compare(false)
    this.stage.show(sheet, picture)
    this.setPlaying(!wantsStill())
  }

  /** Show a message instead of a loop. */
  say(...content) {
    this.setPlaying(false)
    this.compare(false)
    this.stage.clear()
    this.frames = 0
    this.counter.textContent = ""
    this.notice.replaceChildren(...content)
    this.enable(false)
  }

  enable(on) {
    for (const control of [this.playButton, this.slider, this.speed, this.seamButton]) {
      control.disabled = !on
    }
    this.element.classList.toggle("la-empty", !on)
  }

  toggle() {
    if (this.frames) this.setPlaying(!this.stage.playing)
  }

  setPlaying(on) {
    if (on) this.compare(false)
    this.stage.play(on)
    const word = say(on ? "pause" : "play")
    this.playButton.replaceChildren(icon(on ? "pause" : "play"))
    this.playButton.title = `${word} (${say("key_space")})`
    this.playButton.setAttribute("aria-label", word)
  }

  /** The slider selects a frame or, while comparing, blends from the last frame to the first. */
  scrub(value) {
    if (this.comparing) return this.overlay(value)
    this.setPlaying(false)
    this.stage.seek(value)
  }

  /** Stop at a frame. */
  seek(frame) {
    if (!this.frames) return
    this.compare(false)
    this.setPlaying(false)
    this.stage.seek(frame)
  }

  compare(on) {
    const changed = on !== this.comparing
    this.comparing = on
    this.seamButton.setAttribute("aria-pressed", String(on))
    this.badge.hidden = !on
    this.slider.setAttribute("aria-label", say(on ? "seam_slider" : "frame"))
    this.slider.max = String(on ? 100 : Math.max(this.frames - 1, 0))
    if (on) {
      this.setPlaying(false)
      this.overlay(50)
    } else if (changed && this.frames) {
      this.stage.draw()
    }
  }

  overlay(percent) {
    this.stage.overlay(percent / 100)
    this.setSlider(percent)
    this.counter.textContent = `${this.frames}→1`
    this.badge.textContent =
      say(percent === 0 ? "last_frame" : percent === 100 ? "first_frame" : "first_over_last")
    this.onFrame(this.frames - 1)
  }

  showFrame(frame) {
    this.setSlider(frame)
    this.counter.textContent = `${frame + 1}/${this.frames}`
    this.onFrame(frame)
  }

  setSlider(value) {
    this.slider.value = String(value)
    const share = value / Math.max(Number(this.slider.max), 1)
    this.slider.style.setProperty("--la-share", `${share * 100}%`)
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.frames) return
    const onSlider = event.target === this.slider
    const step = (by) => this.seek(this.stage.frame + by)
    const actions = {
      " ": event.target.tagName === "BUTTON" ? null : () => this.toggle(),
      o: () => this.compare(!this.comparing),
      ArrowLeft: onSlider && this.comparing ? null : () => step(-1),
      ArrowRight: onSlider && this.comparing ? null : () => step(1),
      Home: onSlider && this.comparing ? null : () => this.seek(0),
      End: onSlider && this.comparing ? null : () => this.seek(this.frames - 1),
    }
    if (event.target === this.speed || !(event.key in actions)) return
    event.stopPropagation() // the canvas has its own shortcuts for space and arrows
    if (!actions[event.key]) return // keep the browser's default
    event.preventDefault()
    actions[event.key]()
  }
}

function button(name, onClick) {
  const element = html("button", { type: "button", class: `la-button ${name}` })
  element.addEventListener("click", onClick)
  return element
}
