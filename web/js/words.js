// Everything that the panels say, in the languages of `locales/`. No DOM.

import { TRANSLATIONS } from "./translations.js"

const WORDS = {
  en: {
    play: "Play",
    pause: "Pause",
    key_space: "space",
    speed: "Playing speed",
    player: "Loop player",
    frame: "Frame",
    seam: "Seam",
    seam_help: "Lay the first frame over the last (O)",
    seam_slider: "From the last frame to the first",
    first_over_last: "first frame over last",
    first_frame: "first frame",
    last_frame: "last frame",
    chart: "Change from frame to frame",
    median: "median {value} of 255",
    chart_label: "Seam chart: seam step {seam}, median step {median}, of 255",
    earlier: "earlier",
    at_seam: "seam",
    later: "later",
    step: "Frame {from} to {to}: {value} of 255",
    seam_step: "Frame {from} to {to}, the seam of {count} frames: {value} of 255",
    hint: "Run the workflow to see the loop",
    no_frames: "The frames are no longer in ComfyUI’s temporary folder. Run again to see them.",
    not_uploaded: "The pictures could not be uploaded: {reason}",
    no_loop: "No loop to show: the run stopped here",
    stopped: "Stopped",
    progress: "Step {step} of {steps}",
    seamless: "Seamless",
    not_seamless: "Not seamless",
    frames: "{count} frames",
    seconds: "{value} s",
    seam_moves: "the seam moves {value}× as much as the steps beside it",
    found_frozen: "nothing moves",
    found_jump: "the picture jumps at the seam",
    found_held_frame: "a frame is held at the seam",
    found_stall: "the motion stops at the seam",
    found_colour_drift: "the colours drift over the clip and jump back at the seam",
    found_ping_pong: "the clip turns around at full speed and plays backwards",
    found_keyframe_pop: "the encoded picture changes visibly where the file starts again",
    do_frozen: "use a stronger word for the motion, a larger mask, or a higher start",
    do_frozen_full: "use a stronger word for the motion, a larger mask, or another seed",
    do_jump: "set closing to “tie”, and check that only a repeated frame was dropped",
    do_jump_closed:
      "the loop was closed when it was sampled: use more steps, and look for a node that drops, adds or changes single frames after Loop Sampler",
    do_held_frame: "drop the last frame: it repeats the first",
    do_stall: "try another seed",
    do_colour_drift: "pass the frames through the VAE less often",
    do_ping_pong: "sample a loop instead of mirroring a clip",
    do_keyframe_pop: "raise the quality, or save as VP9",
    note_untrained_size:
      "{size} is not a size that this model was trained on ({trained}); expect noise or glitter. Set width and height to 0 for the nearest one, and let Detail Transfer make it large.",
    note_object_cut:
      "The object is larger than the part of the picture that the loop shows. Set fit to pad to see all of it.",
    note_no_motion_dial:
      "This model does not read motion: say gently, strongly, slowly or quickly in the prompt, or change start.",
    hunt_hint: "Run the workflow to see drafts of several seeds",
    hunt_drafts: "Drafts",
    hunt_choose: "Click a draft to use its seed in the next run",
    hunt_chosen: "Seed {seed} is chosen: run again to make its loop",
    batch_start: "Run all pictures",
    batch_rest: "Run the {left} that are left",
    batch_done: "{done} of {total} pictures done",
    batch_failed: "{done} of {total} pictures done, {failed} failed",
    batch_not_used: "Connect this node to the workflow first",
  },
  ...TRANSLATIONS,
}

let language = "en"

/** Choose a language, such as "fr" or "zh-TW"; English if it is not one of ours. */
export function speak(locale) {
  const code = String(locale ?? "").toLowerCase().split(/[-_]/)[0]
  language = code in WORDS ? code : "en"
}

/** The words for `key`, with `{name}` replaced by `values.name`; an unknown key gives "". */
export function say(key, values = {}) {
  const words = WORDS[language][key] ?? WORDS.en[key] ?? ""
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "")
}

export { WORDS }
