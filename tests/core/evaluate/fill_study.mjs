// Fills in a study as a participant does: node fill_study.mjs '{"page": …, "browser": …, "playwright": …, "out": …}'
// Every loop gets Q_S 3 and Q_M 2. In the middle the page is opened again, as if it had been closed.
import { createRequire } from "node:module"
import path from "node:path"
import { pathToFileURL } from "node:url"

const options = JSON.parse(process.argv[2])
const { chromium } = createRequire(path.join(options.playwright, "x.js"))("playwright-core")
const browser = await chromium.launch({ executablePath: options.browser, args: ["--no-sandbox"] })
const page = await browser.newPage()
const problems = []
page.on("pageerror", (error) => problems.push(String(error)))
page.on("request", (request) => {
  if (!/^(file|data|blob):/.test(request.url())) problems.push(request.url())
})
const address = pathToFileURL(options.page).href

/** A number that changes when the loop on a canvas plays. */
const drawn = () =>
  page.evaluate(() => {
    const canvas = document.getElementById("canvas-a")
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    return pixels.reduce((sum, value, place) => (sum + value * (1 + (place % 97))) % 1e9, 0)
  })

await page.goto(address)
await page.click("#begin")
const screens = Number((await page.textContent("#progress")).split(" of ")[1])
let moved = false
for (let number = 0; number < screens; number++) {
  if (number === 1) {
    await page.goto(address)
    await page.click("#begin")
  }
  const at = Number((await page.textContent("#progress")).split(" of ")[0])
  if (at !== number + 1) problems.push(`screen ${at} instead of ${number + 1}`)
  const before = await drawn()
  for (let wait = 0; wait < 50 && !moved; wait++) {
    await page.waitForTimeout(100)
    moved = (await drawn()) !== before
  }
  for (const side of ["a", "b"]) {
    if (await page.isEnabled("#forward")) problems.push("an incomplete screen can be left")
    await page.check(`input[name=${side}-q_s][value="3"]`)
    await page.check(`input[name=${side}-q_m][value="2"]`)
  }
  await page.click("#forward")
}
const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")])
await download.saveAs(options.out)
await browser.close()
console.log(JSON.stringify({ screens, moved, problems, name: download.suggestedFilename() }))
