// Pictures of a real run for the README: node pictures.mjs '{"url": …, "browser": …, "playwright": …,
// "workflow": …, "folder": …, "vue": true}' with a ComfyUI server running at that address.

import { readFile } from "node:fs/promises"
import path from "node:path"

import { load, openSession, queue, success, waitForVerdict } from "./session.mjs"

const MARGIN_PX = 12
const BELOW_PX = 24 // Vue nodes are taller than the graph says
const options = JSON.parse(process.argv[2])
const { browser, page } = await openSession({ ...options, sharpness: 2, width: 1900, height: 900 })

/** Nodes of these types, or all, moved to the middle at a scale; returns where they stand. */
async function frame(types, scale) {
  const box = await page.evaluate(
    ([wanted, zoom]) => {
      const graph = app.graph
      const shown = graph.nodes.filter((node) => !wanted || wanted.includes(node.type))
      const areas = wanted ? [] : (graph.groups ?? graph._groups ?? [])
      const title = 34
      const boxes = [
        ...shown.map(({ pos, size }) => [pos[0], pos[1] - title, size[0], size[1] + title]),
        ...areas.map(({ pos, size }) => [...pos, ...size]),
      ]
      const left = Math.min(...boxes.map((box) => box[0]))
      const top = Math.min(...boxes.map((box) => box[1]))
      const right = Math.max(...boxes.map((box) => box[0] + box[2]))
      const bottom = Math.max(...boxes.map((box) => box[1] + box[3]))
      const { ds, canvas } = app.canvas
      const room = canvas.clientWidth - 200
      ds.scale = zoom ?? room / (right - left)
      ds.offset = [160 / ds.scale - left, 130 / ds.scale - top]
      app.canvas.deselectAll?.()
      graph.setDirtyCanvas(true, true)
      const { x, y } = canvas.getBoundingClientRect()
      return {
        x: x + 160,
        y: y + 130,
        width: (right - left) * ds.scale,
        height: (bottom - top) * ds.scale,
      }
    },
    [types, scale],
  )
  await page.waitForTimeout(1500)
  return {
    x: box.x - MARGIN_PX,
    y: box.y - MARGIN_PX,
    width: box.width + 2 * MARGIN_PX,
    height: box.height + MARGIN_PX + BELOW_PX,
  }
}

async function shoot(name, types = null, scale = null) {
  const clip = await frame(types, scale)
  await page.mouse.move(2, 2)
  await page.screenshot({ path: path.join(options.folder, `${name}.png`), clip })
}

const sampler = (values) =>
  page.evaluate((wanted) => {
    const node = app.graph.nodes.find(({ type }) => type === "LoopAnimate_LoopSampler")
    for (const [name, value] of Object.entries(wanted)) {
      node.widgets.find((widget) => widget.name === name).value = value
    }
  }, values)

await page.evaluate(async () => {
  for (const [name, value] of [
    ["LiteGraph.Canvas.LowQualityRenderingZoomThreshold", 0.1],
    ["LiteGraph.Canvas.MinFontSizeForLOD", 0],
    ["Comfy.Minimap.Visible", false],
    ["Comfy.Canvas.SelectionToolbox", false],
  ]) {
    await app.extensionManager.setting.set(name, value).catch(() => {})
  }
})
await load(page, JSON.parse(await readFile(options.workflow, "utf8")))
const sampling = await frame(["LoopAnimate_LoopSampler"], 1)
await sampler({ seed: Date.now() % 1_000_000, steps: 80 }) // time enough to take its picture
await queue(page)
await page.waitForFunction(() => {
  const said = document.querySelector(".la-caption")?.textContent.match(/Step (\d+)/)
  return said && Number(said[1]) > 30
})
const box = await page.locator(".la-preview").boundingBox()
const height = box.y + box.height + 50 - sampling.y
await page.screenshot({ path: path.join(options.folder, "sampling.png"), clip: { ...sampling, height } })
await page.evaluate(() => fetch("/api/interrupt", { method: "POST" }))
await page.waitForSelector(".la-preview:not([hidden])", { state: "detached" })
await sampler({ seed: 1, steps: 0, ...options.values })
const saved = success(page)
await queue(page)
await waitForVerdict(page, "attached")
await saved
await page.waitForTimeout(4000)
await shoot("basic")
await shoot("check", ["LoopAnimate_LoopCheck"], 1)
await page.locator(".la-compare").first().click()
await shoot("seam", ["LoopAnimate_LoopCheck"], 1)
await browser.close()
