// The text under the player.

import { say } from "./words.js"

/**
 * The verdict as a headline, the findings, and advice.
 *
 * @param {object} entry what the Loop Check node sent.
 * @returns {{headline: string, found: string, advice: string}}
 */
export function verdictWords(entry) {
  if (entry.passed) {
    return { headline: say("seamless"), found: facts(entry.report ?? {}), advice: "" }
  }
  const reasons = entry.reasons ?? []
  const known = reasons.every((reason) => say(`found_${reason}`))
  // The summary reads "Not seamless, 34 frames: what is seen; what else."
  const said = String(entry.summary ?? "").replace(/^[^:]*:\s*/, "")
  const found = known && reasons.length ? `${reasons.map((reason) => say(`found_${reason}`)).join("; ")}.` : said
  const remedies = reasons.map((reason) => remedy(reason, entry.sampled ?? {})).filter(Boolean)
  return {
    headline: say("not_seamless"),
    found: capital(found),
    advice: remedies.length ? `${capital(remedies.join("; "))}.` : "",
  }
}

/** The usual fix for a reason of `loopanimate_core.check`, see docs/loop-check.md, given how the loop was sampled. */
function remedy(reason, { closing, start }) {
  if (reason === "jump" && closing && closing !== "off") return say("do_jump_closed")
  if (reason === "frozen" && start >= 1) return say("do_frozen_full")
  return say(`do_${reason}`)
}

/** Length and seam in a few words; skips what was not measured. */
export function facts(report) {
  const said = []
  if (report.frames) said.push(say("frames", { count: report.frames }))
  if (report.duration_s) said.push(say("seconds", { value: report.duration_s.toFixed(1) }))
  if (typeof report.seam_jump === "number") {
    said.push(say("seam_moves", { value: report.seam_jump.toFixed(2) }))
  }
  return said.join(" · ")
}

function capital(words) {
  return words.charAt(0).toUpperCase() + words.slice(1)
}
