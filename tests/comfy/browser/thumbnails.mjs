// Runs templates in a real page, takes pictures of them and lists the loops that they saved: node thumbnails.mjs '{"url": …, "browser": …,
// "playwright": …, "folder": …, "templates": [{"name", "path", "runs", "nodes": {type: picture}}]}'

import { readFile, writeFile } from "node:fs/promises"
import path from "node:path"

import { load, openSession } from "./session.mjs"

const MARGIN_PX = 12
const BADGE_PX = 20 // above a node's title
const LEFT_PX = 90
const TOP_PX = 120
const BOTTOM_PX = 80
const options = JSON.parse(process.argv[2])
const { browser, page } = await openSession({ ...options, vue: false, still: true, width: 1900, height: 1060 })

/** The node of this type, or everything, brought into view; returns where it stands. */
async function frame(type) {
  const box = await page.evaluate(
    ([wanted, leftPx, topPx, bottomPx]) => {
      const graph = app.graph
      const nodes = graph.nodes.filter((node) => !wanted || node.type === wanted).slice(0, wanted ? 1 : undefined)
      const areas = wanted ? [] : (graph.groups ?? graph._groups ?? [])
      const boxes = [
        ...nodes.map(({ pos, size }) => [pos[0], pos[1] - 32, size[0], size[1] + 32]),
        ...areas.map(({ pos, size }) => [...pos, ...size]),
      ]
      const left = Math.min(...boxes.map((box) => box[0]))
      const top = Math.min(...boxes.map((box) => box[1]))
      const width = Math.max(...boxes.map((box) => box[0] + box[2])) - left
      const height = Math.max(...boxes.map((box) => box[1] + box[3])) - top
      const { ds, canvas } = app.canvas
      const rect = canvas.getBoundingClientRect()
      const room = [rect.width - 2 * leftPx, rect.height - topPx - bottomPx]
      ds.scale = Math.min(room[0] / width, room[1] / height, 1.1)
      ds.offset = [leftPx / ds.scale - left, topPx / ds.scale - top]
      app.canvas.deselectAll?.()
      graph.setDirtyCanvas(true, true)
      return { x: rect.x + leftPx, y: rect.y + topPx, width: width * ds.scale, height: height * ds.scale }
    },
    [type, LEFT_PX, TOP_PX, BOTTOM_PX],
  )
  await page.waitForTimeout(2500) // videos follow a frame or two later
  return {
    x: box.x - MARGIN_PX,
    y: box.y - MARGIN_PX - BADGE_PX,
    width: box.width + 2 * MARGIN_PX,
    height: box.height + 2 * MARGIN_PX + BADGE_PX,
  }
}

/** Run what is on the canvas; returns the files that it saved. */
async function run() {
  const ended = page.evaluate(
    () =>
      new Promise((resolve) => {
        const saved = []
        app.api.addEventListener("executed", ({ detail }) => saved.push(...(detail.output?.loopanimate_saved ?? [])))
        for (const kind of ["execution_success", "execution_error", "execution_interrupted"]) {
          app.api.addEventListener(kind, ({ detail }) => resolve([kind, detail, saved]), { once: true })
        }
      }),
  )
  await page.evaluate(() => app.queuePrompt(0, 1))
  const [kind, detail, saved] = await ended
  if (kind !== "execution_success") throw new Error(JSON.stringify(detail))
  await page.waitForTimeout(4000)
  return saved
}

async function shoot(name, type) {
  const clip = await frame(type)
  await page.mouse.move(950, 1050) // where no tooltip or preview waits
  await page.screenshot({ path: path.join(options.folder, `${name}.png`), clip })
}

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
for (const template of options.templates) {
  await load(page, JSON.parse(await readFile(template.path, "utf8")))
  const saved = template.runs ? await run() : []
  await writeFile(path.join(options.folder, `${template.name}.json`), JSON.stringify(saved))
  await shoot(template.name, null)
  for (const [type, picture] of Object.entries(template.nodes)) await shoot(picture, type)
  console.log(template.name)
}
await browser.close()
