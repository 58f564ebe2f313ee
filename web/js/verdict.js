// The text under the player.

// The usual fix for each reason of `loopanimate_core.check`; see docs/loop-check.md.
const REMEDIES = {
  frozen: "use a stronger word for the motion, or a higher start",
  jump: "set closing to “tie”, and check that only a repeated frame was dropped",
  held_frame: "drop the last frame: it repeats the first",
  stall: "try another seed",
  colour_drift: "pass the frames through the VAE less often",
  ping_pong: "sample a loop instead of mirroring a clip",
  keyframe_pop: "raise the quality, or save as VP9",
}

/**
 * The verdict as a headline, the findings, and advice.
 *
 * @param {object} entry what the Loop Check node sent.
 * @returns {{headline: string, found: string, advice: string}}
 */
export function verdictWords(entry) {
  if (entry.passed) {
    return { headline: "Seamless", found: facts(entry.report ?? {}), advice: "" }
  }
  // The summary reads "Not seamless, 34 frames: what is seen; what else."
  const seen = String(entry.summary ?? "").replace(/^[^:]*:\s*/, "")
  const remedies = (entry.reasons ?? []).map((reason) => REMEDIES[reason]).filter(Boolean)
  return {
    headline: "Not seamless",
    found: capital(seen),
    advice: remedies.length ? `${capital(remedies.join("; "))}.` : "",
  }
}

/** Length and seam in a few words; skips what was not measured. */
export function facts(report) {
  const said = []
  if (report.frames) said.push(`${report.frames} frames`)
  if (report.duration_s) said.push(`${report.duration_s.toFixed(1)} s`)
  if (typeof report.seam_jump === "number") {
    said.push(`the seam moves ${report.seam_jump.toFixed(2)}× as much as the steps beside it`)
  }
  return said.join(" · ")
}

function capital(words) {
  return words.charAt(0).toUpperCase() + words.slice(1)
}
