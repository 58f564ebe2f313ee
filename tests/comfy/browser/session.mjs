// A ComfyUI page in a headless browser, and what tests do in it.

import { createRequire } from "node:module"
import path from "node:path"

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
]
const TIMEOUT_MS = 180_000 // of anything; alone on a machine all takes half a minute

/** playwright-core from a folder that holds it, or wherever Node finds it. */
export function findPlaywright(folder) {
  const places = folder ? [path.resolve(folder, ".."), folder] : [import.meta.dirname]
  for (const place of places) {
    try {
      return createRequire(path.join(place, "x.js"))("playwright-core")
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error
    }
  }
  return null
}

/**
 * Open ComfyUI's page with an empty canvas.
 *
 * @param {{url: string, browser: string, playwright: string, vue: boolean, theme?: string}} options
 */
export async function openSession(options) {
  const settings = {
    "Comfy.TutorialCompleted": true, // or a dialog covers the canvas
    "Comfy.VueNodes.Enabled": options.vue,
    "Comfy.ColorPalette": options.theme ?? "dark",
    "Comfy.Workflow.Persist": false,
  }
  for (const [name, value] of Object.entries(settings)) {
    await fetch(`${options.url}/api/settings/${name}`, { method: "POST", body: JSON.stringify(value) })
  }
  const { chromium } = findPlaywright(options.playwright)
  const browser = await chromium.launch({ executablePath: options.browser, args: FLAGS })
  const context = await browser.newContext({
    viewport: { width: options.width ?? 1600, height: options.height ?? 1000 },
    deviceScaleFactor: options.sharpness ?? 1,
    reducedMotion: options.still ? "reduce" : "no-preference",
  })
  const page = await context.newPage()
  page.setDefaultTimeout(TIMEOUT_MS)
  const complaints = listen(page)
  await page.goto(options.url, { waitUntil: "domcontentloaded" })
  await page.waitForFunction(
    () => window.app?.graph && window.LiteGraph?.registered_node_types.LoopAnimate_LoopCheck,
  )
  await page.waitForTimeout(500)
  return { browser, page, complaints }
}

/** Errors and warnings that name this extension, and errors thrown anywhere after it was loaded. */
function listen(page) {
  const complaints = []
  page.on("console", (message) => {
    const said = `${message.text()} ${message.location().url}`
    if (["error", "warning"].includes(message.type()) && /loopanimate/i.test(said)) {
      complaints.push(said)
    }
  })
  page.on("pageerror", (error) => {
    if (/\/extensions\//.test(error.stack ?? "")) complaints.push(error.stack)
  })
  return complaints
}

/** Put a saved workflow on the canvas. */
export async function load(page, workflow) {
  await page.evaluate((graph) => app.loadGraphData(graph), workflow)
  await page.waitForTimeout(300)
  await fit(page)
}

/** Bring the whole graph into view: what is off the screen is not played. */
export async function fit(page) {
  await page.evaluate(() => {
    const { ds, canvas } = app.canvas
    const edges = app.graph.nodes.map(({ pos, size }) => [...pos, pos[0] + size[0], pos[1] + size[1]])
    const [left, top] = [0, 1].map((side) => Math.min(...edges.map((edge) => edge[side])))
    const [right, bottom] = [2, 3].map((side) => Math.max(...edges.map((edge) => edge[side])))
    const { clientWidth, clientHeight } = canvas
    const room = [clientWidth - 160, clientHeight - 160]
    ds.scale = Math.min(1, room[0] / (right - left), room[1] / (bottom - top))
    ds.offset = [100 / ds.scale - left, 110 / ds.scale - top]
    app.graph.setDirtyCanvas(true, true)
  })
  await page.waitForTimeout(300)
}

/** Run what is on the canvas as the Run button does; resolves once it is queued. */
export function queue(page) {
  return page.evaluate(() => app.queuePrompt(0, 1))
}

/** The middle of the first node of a type, or a place beside it in pixels of the graph, on the screen. */
export function placeOf(page, type, beside = null) {
  return page.evaluate(
    ([wanted, offset]) => {
      const { pos, size } = app.graph.nodes.find((node) => node.type === wanted)
      const [right, down] = offset ?? [size[0] / 2, size[1] / 2]
      const { ds, canvas } = app.canvas
      const { x, y } = canvas.getBoundingClientRect()
      return { x: x + (pos[0] + right + ds.offset[0]) * ds.scale, y: y + (pos[1] + down + ds.offset[1]) * ds.scale }
    },
    [type, beside],
  )
}

/** Drop files of this machine on a place of the page, as the mouse does. */
export async function dropFiles(page, { x, y }, files) {
  const session = await page.context().newCDPSession(page)
  const data = { items: [], files, dragOperationsMask: 1 }
  for (const type of ["dragEnter", "dragOver", "dragOver", "drop"]) {
    await session.send("Input.dispatchDragEvent", { type, x, y, data })
    await page.waitForTimeout(100)
  }
  await session.detach()
}

/** Press the page's Run button with the mouse. */
export function pressRun(page) {
  return page.getByRole("button", { name: /^Run/ }).first().click()
}

/** Resolves once the next run has succeeded; call it before `queue`. */
export function success(page) {
  return page.evaluate(
    () => new Promise((resolve) => app.api.addEventListener("execution_success", () => resolve(), { once: true })),
  )
}

/** Resolves once the verdict is there, and the loop, which the page has to load. */
export async function waitForVerdict(page, state = "visible") {
  await page.waitForSelector(".la-verdict:not([hidden])", { state })
  await page.waitForSelector(".la-player:not(.la-empty)", { state })
}

export function waitForPreview(page) {
  return page.waitForSelector(".la-preview:not([hidden])")
}

/** What the player shows, in words. */
export function readPanel(page) {
  return page.evaluate(() => {
    const panel = document.querySelector(".la-check")
    const text = (name) => panel.querySelector(name)?.textContent.trim() ?? null
    return {
      state: [...panel.classList].find((name) => /^la-(passed|failed|stopped)$/.test(name)) ?? null,
      headline: text(".la-verdict strong"),
      icons: panel.querySelectorAll(".la-verdict .la-icon").length,
      counter: text(".la-counter"),
      notice: text(".la-notice"),
      bars: panel.querySelectorAll(".la-bar").length,
      button: panel.querySelector(".la-play").getAttribute("aria-label"),
      comparing: panel.querySelector(".la-compare").getAttribute("aria-pressed"),
      badge: panel.querySelector(".la-badge").hidden ? null : text(".la-badge"),
    }
  })
}

/** A number that changes with the pixels of the first canvas that matches. */
export function pixels(page, selector) {
  return page.evaluate((name) => {
    const canvas = document.querySelector(name)
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
    let hash = 0
    for (const value of data) hash = (hash * 31 + value) | 0
    return hash
  }, selector)
}

/** Types, links and saved values of the graph: what has to survive a saved file. */
export function outline(page) {
  return page.evaluate(() => {
    const graph = app.graph.serialize()
    const nodes = Object.fromEntries(
      graph.nodes.map((node) => [node.id, { type: node.type, values: node.widgets_values ?? [] }]),
    )
    const links = graph.links.map((link) => link.slice(1)).sort()
    return { nodes, links }
  })
}
