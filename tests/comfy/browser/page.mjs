// One run through the page. Reads its options as JSON from the command line, and prints what it saw
// as one line of JSON; tests/comfy/test_page.py judges it.

import { readFile } from "node:fs/promises"
import path from "node:path"

import {
  dropFiles,
  fit,
  load,
  openSession,
  outline,
  pixels,
  placeOf,
  pressRun,
  queue,
  readPanel,
  success,
  waitForPreview,
  waitForVerdict,
} from "./session.mjs"

const CHECK = "LoopAnimate_LoopCheck"
const SAMPLER = "LoopAnimate_LoopSampler"
const SAVE = "LoopAnimate_SaveLoop"
const FOLDER = "LoopAnimate_LoadPictureFromFolder"
const options = JSON.parse(process.argv[2])
const { browser, page, complaints } = await openSession(options)
const seen = { complaints }
let saved // resolves once the run has ended

/** Set widgets of the sampler, or of the first node of another type. */
function setValues(values, kind = SAMPLER) {
  return page.evaluate(
    ([type, wanted]) => {
      const node = app.graph.nodes.find((candidate) => candidate.type === type)
      for (const [name, value] of Object.entries(wanted)) {
        node.widgets.find((widget) => widget.name === name).value = value
      }
    },
    [kind, values],
  )
}

async function watchRun() {
  await load(page, JSON.parse(await readFile(options.workflow, "utf8")))
  await setValues({ seed: Date.now() % 1_000_000, ...options.values }) // else it is cached
  seen.loaded = await outline(page)
  seen.before = await readPanel(page)
  const heightOf = (type) =>
    page.evaluate((name) => app.graph.nodes.find((node) => node.type === name).size[1], type)
  await page.evaluate((name) => {
    const node = app.graph.nodes.find(({ type }) => type === name)
    node.setSize([node.size[0], node.computeSize()[1]]) // without the room that the template leaves for the preview
  }, SAMPLER)
  const height = await heightOf(SAMPLER)
  saved = success(page)
  saved.catch(() => {}) // if the page is closed before, the reason is reported elsewhere
  await queue(page)
  await waitForPreview(page)
  const first = await pixels(page, ".la-preview canvas")
  await page.waitForTimeout(700)
  const stepSaid = async () => Number.parseInt((await page.textContent(".la-preview .la-caption")).match(/\d+/))
  await page.evaluate(() => {
    const node = app.graph.nodes.find(({ type }) => type === "LoopAnimate_LoopSampler")
    const told = { value: 5, max: 6, node: String(node.id), prompt_id: null }
    app.api.dispatchCustomEvent("progress", told) // more often than pictures
  })
  const later = await stepSaid()
  seen.preview = {
    later,
    words: await page.textContent(".la-preview .la-caption"),
    moves: first !== (await pixels(page, ".la-preview canvas")),
    grew: (await heightOf(SAMPLER)) > height,
    other: await page.evaluate(
      (name) => app.graph.nodes.find((node) => node.type === name).imgs?.length ?? 0,
      SAMPLER,
    ),
  }
  await waitForVerdict(page)
  seen.afterPreview = {
    shows: await page.locator(".la-preview:not([hidden])").count(),
    sameHeight: (await heightOf(SAMPLER)) === height,
  }
}

/** What the page does when the same result arrives once more. */
async function showAgain() {
  await page.evaluate((type) => {
    const node = app.graph.nodes.find((candidate) => candidate.type === type)
    node.onExecuted(app.nodeOutputs[node.id])
  }, CHECK)
  await page.waitForTimeout(500)
}

async function tryPlayer() {
  const player = page.locator(".la-check .la-player").first()
  const state = () => readPanel(page)
  const press = async (key) => {
    await page.keyboard.press(key)
    return state()
  }
  seen.verdict = await state()
  await page.waitForTimeout(700)
  seen.playing = (await state()).counter !== seen.verdict.counter
  await player.focus()
  seen.paused = await press(" ")
  seen.end = await press("End")
  seen.wrapped = await press("ArrowRight")
  const alone = await pixels(page, ".la-check canvas")
  seen.seam = await press("o")
  seen.blends = alone !== (await pixels(page, ".la-check canvas"))
  await showAgain()
  seen.rerun = await state()
  await player.focus()
  await press(" ")
  seen.again = await press(" ")
  await page.locator(".la-check .la-column").first().click()
  seen.picked = await state()
  await page.emulateMedia({ reducedMotion: "reduce" })
  await showAgain()
  seen.calm = await state()
  await page.emulateMedia({ reducedMotion: "no-preference" })
}

async function saveAndDrop() {
  seen.saved = await page.evaluate(
    async ([check, sampler]) => {
      const { output, workflow } = await app.graphToPrompt()
      const inputs = (type) => Object.values(output).find((node) => node.class_type === type).inputs
      const values = (type) => workflow.nodes.find((node) => node.type === type).widgets_values
      return {
        checkInputs: Object.keys(inputs(check)),
        checkValues: values(check),
        samplerInputs: Object.keys(inputs(sampler)),
        samplerValues: values(sampler),
      }
    },
    [CHECK, SAMPLER],
  )
  await saved
  const file = await page.evaluate(async () => {
    const history = Object.values(await (await fetch("/api/history?max_items=20")).json())
    const saved = history.flatMap((run) => Object.values(run.outputs)).filter((o) => o.loopanimate_saved)
    return saved.at(-1)?.loopanimate_saved[0] ?? null
  })
  if (!file) return
  await page.evaluate(async (entry) => {
    app.graph.clear()
    const answer = await fetch(`/api/view?${new URLSearchParams(entry)}`)
    const name = entry.filename
    const type = answer.headers.get("content-type") ?? "video/mp4"
    await app.handleFile(new File([await answer.blob()], name, { type }))
  }, file)
  await page.waitForTimeout(800)
  seen.dropped = { file: file.filename, ...(await outline(page)) }
}

async function mistreat() {
  const panels = () => page.locator(".la-check").count()
  const evaluate = (action) => page.evaluate(action, CHECK)
  // A result survives undo, which builds every node anew.
  seen.undone = await page.evaluate(async (type) => {
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
    const find = () => app.graph.nodes.find((node) => node.type === type)
    tracker.checkState()
    find().pos = [find().pos[0] + 40, find().pos[1]]
    tracker.checkState()
    await tracker.undo()
    await new Promise((done) => setTimeout(done, 800))
    return document.querySelector(".la-verdict:not([hidden]) strong")?.textContent ?? null
  }, CHECK)
  await evaluate((type) => {
    app.canvas.selectNode(app.graph.nodes.find((node) => node.type === type))
    app.canvas.copyToClipboard()
    app.canvas.pasteFromClipboard()
  })
  await page.waitForTimeout(500)
  seen.pasted = await panels()
  await evaluate((type) => {
    const copies = app.graph.nodes.filter((node) => node.type === type)
    copies.at(-1).collapse(true)
    copies.at(-1).collapse(true)
    app.graph.remove(copies.at(-1))
  })
  await page.waitForTimeout(500)
  seen.removed = await panels()
  // Events for nodes that are not there, in all forms of their ids.
  seen.strangers = await page.evaluate(() => {
    const data = { prompt_id: "none", sheet: "data:,", columns: 1, frames: 1, width: 1, height: 1 }
    const api = app.api ?? window.comfyAPI.api.api
    for (const node of ["99999", "99999:5", "c0ffee00-0000-0000-0000-000000000000:5", null, 7, ""]) {
      api.dispatchCustomEvent("loopanimate.preview", { ...data, node })
    }
    api.dispatchCustomEvent("loopanimate.preview", {})
    return document.querySelectorAll(".la-preview:not([hidden])").length
  })
}

async function interrupt() {
  await setValues({ seed: Date.now() % 1_000_000, steps: 200 })
  await queue(page)
  await waitForPreview(page)
  await page.evaluate(() => fetch("/api/interrupt", { method: "POST" }))
  await page.waitForSelector(".la-preview:not([hidden])", { state: "detached", timeout: 60_000 })
  seen.interrupted = true
}

/** Drop a photograph on the basic template, with the mouse: on its picture, and beside it. */
async function dropPhoto() {
  await load(page, JSON.parse(await readFile(options.workflow, "utf8")))
  const picture = () =>
    page.evaluate(() => {
      const nodes = app.graph.nodes.filter(({ type }) => type === "LoadImage")
      return nodes.map((node) => node.widgets.find(({ name }) => name === "image").value).join()
    })
  const drop = async (place) => {
    await page.evaluate(() => {
      const node = app.graph.nodes.find(({ type }) => type === "LoadImage")
      node.widgets.find(({ name }) => name === "image").value = "loopanimate_ghost.png"
    })
    await dropFiles(page, place, [options.photo])
    for (let tries = 0; tries < 50 && (await picture()) === "loopanimate_ghost.png"; tries++) {
      await page.waitForTimeout(200)
    }
    return picture()
  }
  seen.photo = {
    onCanvas: await drop(await placeOf(page, "LoopAnimate_DetailTransfer", [100, 800])),
    onOtherNode: await drop(await placeOf(page, CHECK)),
    onPicture: await drop(await placeOf(page, "LoadImage")),
    alerts: await page.evaluate(() => document.body.textContent.includes("Unable to find workflow")),
  }
}

/** The loop of that photograph: the second click. Fewer steps and frames than in the template save time. */
async function makeWallpaper() {
  await setValues({ steps: 2, seed: Date.now() % 1_000_000 })
  await setValues({ fps: 0 }, "LoopAnimate_DetailTransfer")
  seen.wallpaper = { file: await runAndFind(() => pressRun(page)) }
}

/** Run by doing something; returns the file that Save Loop wrote. */
async function runAndFind(start) {
  const written = page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        app.api.addEventListener("executed", ({ detail }) => {
          if (detail.output?.loopanimate_saved) resolve(detail.output.loopanimate_saved[0])
        })
        app.api.addEventListener("execution_error", ({ detail }) => reject(new Error(detail.exception_message)))
      }),
  )
  written.catch(() => {})
  const ended = success(page)
  ended.catch(() => {})
  await start()
  const file = await written
  await ended
  return file
}

/** How large Save Loop shows a small loop in each kind of format. */
async function fillPreviews() {
  seen.previews = {}
  const graph = JSON.parse(await readFile(options.workflow, "utf8"))
  for (const format of ["webp", "gif", "apng", "mp4"]) {
    await load(page, graph)
    await setValues({ steps: 2, seed: 5 })
    await setValues({ fps: 0, size: "model" }, "LoopAnimate_DetailTransfer") // far smaller than the node
    await setValues({ format }, SAVE)
    await runAndFind(() => queue(page))
    for (let tries = 0; tries < 60 && !(seen.previews[format] > 0.85); tries++) {
      await page.waitForTimeout(250) // the page shows a file some time after the run
      seen.previews[format] = await widthOfPreview()
    }
  }
}

/** How wide Save Loop's preview is, as a share of its node. */
function widthOfPreview() {
  return page.evaluate((type) => {
    const node = app.graph.nodes.find((candidate) => candidate.type === type)
    const vue = document.querySelector(`[data-node-id="${node.id}"]`)
    const held = node.widgets.find(({ name }) => name === "$$comfy_animation_preview")?.element
    const places = [node.videoContainer, held, vue].filter((place) => place?.isConnected)
    const shown = places.flatMap((place) => [...place.querySelectorAll("video, img")])
    const widths = shown.map((element) => element.getBoundingClientRect().width)
    return Math.max(0, ...widths) / (node.size[0] * app.canvas.ds.scale)
  }, SAVE)
}

/** Drop two pictures on Load Picture From Folder. */
async function dropOnFolder() {
  await page.evaluate((type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = [300, 200]
  }, FOLDER)
  await fit(page)
  await page.waitForTimeout(800)
  const values = () =>
    page.evaluate((type) => {
      const { widgets } = app.graph.nodes.find((node) => node.type === type)
      return Object.fromEntries(widgets.map(({ name, value }) => [name, value]))
    }, FOLDER)
  await dropFiles(page, await placeOf(page, FOLDER), [options.photo, options.photo.replace("dandelion", "coffee")])
  for (let tries = 0; tries < 50 && !(await values()).folder.startsWith("input/"); tries++) {
    await page.waitForTimeout(200)
  }
  seen.folder = await values()
}

/** Run all pictures of that folder; then take up a batch of which one is left. */
async function runBatch() {
  await page.evaluate((type) => {
    const node = app.graph.nodes.find((candidate) => candidate.type === type)
    const preview = LiteGraph.createNode("PreviewImage")
    app.graph.add(preview)
    preview.pos = [800, 200]
    node.connect(0, preview, 0)
  }, FOLDER)
  const words = page.locator(".la-batch-words")
  const told = async (start) => {
    await start()
    for (let tries = 0; tries < 200 && !(await words.textContent()).startsWith("2 of 2"); tries++) {
      await page.waitForTimeout(300)
    }
    return words.textContent()
  }
  const runs = () => page.evaluate(async () => Object.values(await (await fetch("/api/history")).json()))
  const before = (await runs()).length
  const buttons = page.locator(".la-batch-button:not([hidden])")
  const all = await told(() => buttons.first().click())
  const queued = (await runs()).slice(before)
  const taken = queued.map(({ prompt }) => Object.values(prompt[2]).find((n) => n.class_type === FOLDER).inputs.index)
  await page.evaluate((type) => {
    const folder = app.graph.nodes.find((node) => node.type === type).widgets.find(({ name }) => name === "folder")
    const { value } = folder
    const state = [["coffee.jpg", { state: "left" }], ["dandelion.jpg", { state: "done" }]]
    localStorage.setItem(`loopanimate.batch ${value}`, JSON.stringify(state))
    for (const chosen of ["LoopAnimate pictures", value]) {
      folder.value = chosen
      folder.callback(chosen)
    }
  }, FOLDER)
  await page.waitForTimeout(500)
  const offered = await buttons.last().textContent()
  const rest = await told(() => buttons.last().click())
  seen.batch = { all, taken, offered, rest, later: (await runs()).length - before - queued.length, buttons: await buttons.count() }
}

/** What the page sends for the templates that have subgraphs. */
async function openSubgraphs() {
  seen.prompts = {}
  for (const [name, file] of Object.entries(options.subgraphs)) {
    await load(page, JSON.parse(await readFile(file, "utf8")))
    seen.prompts[name] = await page.evaluate(async () => (await app.graphToPrompt()).output)
  }
}

/** What Build Loop Conditions says of its settings, and that it stops saying it. */
async function readNotes() {
  seen.notes = await page.evaluate(async () => {
    const node = app.graph.nodes.find(({ type }) => type === "LoopAnimate_BuildLoopConditions")
    const height = node.size[1]
    const say = async (notes) => {
      node.onExecuted({ loopanimate_notes: notes })
      await new Promise((done) => setTimeout(done, 500))
      const shown = document.querySelector(".la-notes:not([hidden])")
      return { words: shown?.textContent ?? "", grew: node.size[1] > height }
    }
    const size = { key: "untrained_size", size: "512 x 512", trained: "96 x 96" }
    return [await say([size, size]), await say([])]
  })
}

const shot = async (name) => {
  if (options.pictures) await page.screenshot({ path: path.join(options.pictures, `${name}.png`) })
}
try {
  await watchRun()
  await shot("run")
  await tryPlayer()
  await shot("player")
  await mistreat()
  await saveAndDrop()
  await interrupt()
  await dropPhoto()
  await readNotes()
  await makeWallpaper()
  await shot("wallpaper")
  await fillPreviews()
  await shot("previews")
  await openSubgraphs()
  await shot("subgraphs")
  await dropOnFolder()
  await runBatch()
  await shot("end")
} catch (error) {
  seen.failure = error.stack
  await shot("failure")
} finally {
  await browser.close()
}
console.log(JSON.stringify(seen))
