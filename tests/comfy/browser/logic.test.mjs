// The page's arithmetic, without a page: node --test logic.test.mjs

import assert from "node:assert/strict"
import { test } from "node:test"

import { Batch, endOf, promptFor, seedsIn } from "../../../web/js/batch.js"
import { newFolder, ownPicture, picturesIn } from "../../../web/js/dropping.js"
import { findNode } from "../../../web/js/graph.js"
import { chartBars } from "../../../web/js/seam_chart.js"
import { advance, cellOf, readSheet, wrap } from "../../../web/js/sheet.js"
import { facts, verdictWords } from "../../../web/js/verdict.js"
import { say, speak, WORDS } from "../../../web/js/words.js"

test("cells lie row by row", () => {
  const sheet = { columns: 3, width: 10, height: 20 }
  assert.deepEqual(cellOf(sheet, 0), { x: 0, y: 0, width: 10, height: 20 })
  assert.deepEqual(cellOf(sheet, 5), { x: 20, y: 20, width: 10, height: 20 })
})

test("time goes round, and a page that slept does not skip ahead", () => {
  assert.equal(wrap(-1, 20), 19)
  assert.equal(wrap(20, 20), 0)
  assert.equal(advance(19.5, 125, 8, 20), 0.5)
  assert.equal(advance(3, 60_000, 8, 20), 5)
  assert.equal(advance(3, -40, 8, 20), 3)
  let position = 0
  for (let i = 0; i < 240; i++) position = advance(position, 1000 / 60, 8, 20)
  assert.ok(Math.abs(position - 12) < 1e-6, "4 s at 8 fps are 32 frames")
})

test("a sheet that cannot be played is refused", () => {
  const good = { columns: 2, frames: 4, width: 64, height: 48, fps: 12 }
  assert.deepEqual(readSheet(good), good)
  assert.equal(readSheet({ ...good, fps: null }).fps, 8)
  for (const broken of [undefined, {}, { ...good, frames: 0 }, { ...good, width: "x" }]) {
    assert.equal(readSheet(broken), null)
  }
})

for (const count of [1, 2, 4, 5, 34, 121, 500]) {
  test(`the seam stands in the middle of ${count} steps`, () => {
    const steps = Array.from({ length: count }, (_, i) => i + 1)
    const { bars, scale } = chartBars(steps)
    assert.equal(bars.length, Math.min(count, 121))
    const seam = bars.findIndex((bar) => bar.seam)
    assert.ok(Math.abs(seam - (bars.length - 1) / 2) <= 0.5)
    assert.equal(bars[seam].frame, count - 1)
    if (bars[seam + 1]) assert.equal(bars[seam + 1].frame, 0)
    if (bars[seam - 1]) assert.equal(bars[seam - 1].frame, count - 2)
    assert.equal(new Set(bars.map((bar) => bar.frame)).size, bars.length)
    for (const { left, width, height } of bars) {
      assert.ok(left >= 0 && left + width <= 100 && height >= 0 && height <= 100)
    }
    assert.ok(scale > Math.max(...bars.map((bar) => bar.step)))
  })
}

test("a chart of nothing has no bars", () => {
  assert.deepEqual(chartBars([]).bars, [])
  assert.equal(chartBars([0, 0, 0, 0]).bars.length, 4)
})

test("nodes are found by all three kinds of id", () => {
  const graph = (...nodes) => ({
    nodes,
    getNodeById: (id) => nodes.find((node) => String(node.id) === String(id)) ?? null,
  })
  const inner = { id: 5 }
  const outer = { id: 12, subgraph: graph(inner) }
  const root = graph(outer, { id: 3 })
  root.subgraphs = new Map([["ab-cd", outer.subgraph]])
  assert.equal(findNode(root, "12"), outer)
  assert.equal(findNode(root, 3).id, 3)
  assert.equal(findNode(root, "12:5"), inner)
  assert.equal(findNode(root, "ab-cd:5"), inner)
  for (const stranger of ["4", "12:6", "3:5", "9:9", "xy:5", "", null, undefined, ":", "12:"]) {
    assert.equal(findNode(root, stranger), null)
  }
  assert.equal(findNode(undefined, "12"), null)
})

test("the verdict's words", () => {
  const report = { frames: 34, duration_s: 4.25, seam_jump: 1.054 }
  assert.match(facts(report), /^34 frames · 4.3 s · the seam moves 1.05× /)
  assert.equal(facts({ frames: 4, duration_s: null, seam_jump: null }), "4 frames")
  assert.equal(verdictWords({ passed: true, report }).headline, "Seamless")
  const failed = verdictWords({
    passed: false,
    reasons: ["jump", "a reason of tomorrow"],
    summary: "Not seamless, 34 frames: the picture jumps at the seam; something new.",
  })
  assert.equal(failed.headline, "Not seamless")
  assert.equal(failed.found, "The picture jumps at the seam; something new.")
  assert.match(failed.advice, /^Set closing to “tie”.*\.$/)
  const advice = (reason, sampled) => verdictWords({ passed: false, reasons: [reason], sampled }).advice
  assert.match(advice("jump", { closing: "tie" }), /^The loop was closed .*more steps/)
  assert.match(advice("jump", { closing: "off" }), /^Set closing to “tie”/)
  assert.match(advice("frozen", { start: 0.5 }), /higher start/)
  assert.doesNotMatch(advice("frozen", { start: 1 }), /higher start/)
})

test("every language has all words, with the same values in them", () => {
  const values = (words) => (words.match(/\{\w+\}/g) ?? []).sort()
  for (const [language, words] of Object.entries(WORDS)) {
    assert.deepEqual(Object.keys(words).sort(), Object.keys(WORDS.en).sort(), language)
    for (const [key, text] of Object.entries(words)) {
      assert.deepEqual(values(text), values(WORDS.en[key]), `${language} ${key}`)
    }
  }
  speak("zh-TW")
  assert.equal(say("frames", { count: 3 }), "3 帧")
  assert.equal(verdictWords({ passed: false, reasons: ["frozen"] }).headline, WORDS.zh.not_seamless)
  speak("de")
  assert.equal(say("play"), "Play")
  assert.equal(say("a key of tomorrow"), "")
})

test("dropped pictures become a folder with a legal name of its own", () => {
  const event = { dataTransfer: { files: [{ name: "A b.JPG" }, { name: "flow.json" }, { name: "x.png.mp4" }] } }
  assert.deepEqual(picturesIn(event).map(({ name }) => name), ["A b.JPG"])
  assert.deepEqual(picturesIn(undefined), [])
  assert.equal(newFolder(new Date(2026, 0, 2, 3, 4, 5)), "dropped 2026-01-02 03.04.05")
})

test("a photograph goes to the one node that the template calls one's own picture", () => {
  const own = { type: "LoadImage", title: "Your picture", onDragDrop() {} }
  const other = { ...own, title: "Load Image" }
  assert.equal(ownPicture([own, other]), own)
  assert.equal(ownPicture([own, { ...own }]), null)
  assert.equal(ownPicture([other, { ...own, type: "KSampler" }]), null)
  assert.equal(ownPicture(undefined), null)
})

test("a batch that was stopped knows what is left, also in another page", () => {
  const batch = new Batch()
  batch.begin(["a", "b", "c", "d", "e"])
  for (const name of ["a", "b", "c", "d"]) batch.queued(name, `run ${name}`)
  batch.refused("e", "no such node")
  assert.equal(batch.ended("run a", "done"), true)
  assert.equal(batch.ended("run b", "failed", "no space"), true)
  assert.equal(batch.ended("a run of someone else", "done"), false)
  assert.equal(batch.ended("run c", ...endOf(undefined)), true)
  const later = new Batch(JSON.parse(JSON.stringify(batch.saved())))
  assert.deepEqual(later.rest(), ["b", "c", "e"])
  assert.deepEqual(later.runs(), ["run d"])
  assert.deepEqual(later.count(), { done: 1, total: 5, failed: 2, left: 3 })
  assert.deepEqual(later.failures(), ["b: no space", "e: no such node"])
})

test("how a run ended, from ComfyUI's history", () => {
  assert.deepEqual(endOf({ status_str: "success", messages: [] }), ["done"])
  const failed = { status_str: "error", messages: [["execution_error", { exception_message: "no mask \n" }]] }
  assert.deepEqual(endOf(failed), ["failed", "no mask"])
  assert.deepEqual(endOf({ status_str: "error", messages: [["execution_interrupted", {}]] }), ["left"])
})

test("each picture of a batch has the seed that control after generate would give it", () => {
  const sampler = (how) => ({
    widgets: [{ name: "seed", options: { max: 2 ** 64 } }, { name: "control_after_generate", value: how }, { name: "steps" }],
  })
  const nodes = { 3: sampler("increment"), 8: sampler("randomize"), 9: sampler("increment"), 10: sampler("fixed"), 11: null }
  const inputs = () => ({ seed: 5, steps: 2 })
  const output = { 3: { inputs: { index: 0 } }, 11: { inputs: {} }, 12: { inputs: { seed: ["8", 0] } } }
  for (const id of ["8", "9", "10"]) output[id] = { inputs: inputs() }
  nodes[12] = sampler("randomize")
  const seeds = seedsIn(output, (id) => nodes[id] ?? null, "3")
  assert.deepEqual(seeds.map(({ id, how }) => [id, how]), [["8", "randomize"], ["9", "increment"]])
  const workflow = { nodes: [{ id: 3, widgets_values: ["input", 0] }, { id: 8, widgets_values: [5, "randomize", 2] }] }
  const own = promptFor({ output, workflow }, "3", 4, seeds, 4)
  assert.equal(own.output[3].inputs.index, 4)
  assert.deepEqual(own.workflow.nodes[0].widgets_values, ["input", 4])
  assert.equal(own.output[9].inputs.seed, 9)
  assert.equal(own.output[10].inputs.seed, 5)
  assert.equal(own.workflow.nodes[1].widgets_values[0], own.output[8].inputs.seed)
  const others = [0, 1, 2].map((k) => promptFor({ output, workflow }, "3", k, seeds, k).output[8].inputs.seed)
  assert.equal(new Set(others).size, 3)
  assert.ok(others.every((seed) => Number.isSafeInteger(seed) && seed >= 0))
  assert.equal(output[8].inputs.seed, 5)
})
