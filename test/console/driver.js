// Looks at pages of the console in Chromium. Standard input is the plan, one line of JSON;
// for each page a line of what it showed is printed.
'use strict'
const fs = require('fs')
const path = require('path')
const readline = require('readline')
const { chromium } = require('playwright-core')

const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

// What a page shows, as text. It runs in the page.
const shown = () => ({
  title: document.title,
  sentence: document.querySelector('h1') ? document.querySelector('h1').innerText : '',
  text: document.body.innerText,
  tables: [...document.querySelectorAll('main table')].map((t) => [...t.rows].map((r) => [...r.cells].map((c) => c.textContent.trim()))),
  tiles: Object.fromEntries([...document.querySelectorAll('.tile')].map((t) => [t.querySelector('.name').textContent, t.querySelector('.value').textContent])),
  charts: document.querySelectorAll('svg.chart').length,
  wider: document.documentElement.scrollWidth - document.documentElement.clientWidth
})

async function main () {
  const lines = readline.createInterface({ input: process.stdin })
  const plan = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)))
  lines.close()
  const browser = await chromium.launch({ executablePath: plan.chromium, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'] })
  try {
    for (const look of plan.looks) {
      const context = await browser.newContext({ viewport: { width: look.width, height: look.height }, colorScheme: look.scheme, javaScriptEnabled: look.scripts, deviceScaleFactor: 1, isMobile: look.phone, hasTouch: look.phone, reducedMotion: 'reduce' })
      let errors = []
      let elsewhere = []
      context.on('request', (r) => { if (!look.origins.some((o) => r.url().startsWith(o + '/')) && !r.url().startsWith('data:')) elsewhere.push(r.url()) })
      const page = await context.newPage()
      page.setDefaultTimeout(60000)
      page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') errors.push(m.text()) })
      page.on('pageerror', (e) => errors.push(String(e)))
      page.on('requestfailed', (r) => { if (!r.url().includes('/live/events')) errors.push(r.url() + ': ' + r.failure().errorText) })
      await page.goto(look.start)
      for (const p of look.pages) {
        errors = []
        elsewhere = []
        const answer = await page.goto(p.url, { waitUntil: 'load' })
        if (p.click) await page.click(p.click)
        if (p.await) await page.waitForSelector(p.await)
        const result = { look: look.name, page: p.name, status: answer.status(), ...(look.scripts ? await page.evaluate(shown) : { text: await page.innerText('body') }) }
        if (look.scripts) {
          await page.evaluate(axe)
          const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
          result.violations = found.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => ({ rule: v.id, help: v.help, nodes: v.nodes.slice(0, 4).map((n) => n.html.slice(0, 240) + ' ' + n.failureSummary) }))
        }
        if (plan.folder) await page.screenshot({ path: path.join(plan.folder, p.name + '-' + look.name + '.png'), fullPage: true })
        console.log(JSON.stringify({ ...result, errors, elsewhere }))
      }
      await context.close()
    }
  } finally {
    await browser.close()
  }
}

main().catch((e) => { console.error(e); process.exit(1) })
