// Runs browser SDKs in Chromium, a page for each scenario. The first line of
// standard input is the plan; pages stay open, so that SDKs can send again, until
// standard input ends.
'use strict'
const readline = require('readline')
const { chromium } = require('playwright-core')

// What pages do, by SDK and mode. These functions run in the page.
const pages = {
  'analytics-next': async (env) => {
    await env.script('/sdk/@segment/analytics-next/dist/umd/index.js')
    const host = env.url.replace('http://', '')
    const io = { apiHost: host + '/v1', protocol: 'http' }
    if (env.mode === 'leave') io.deliveryStrategy = { strategy: 'batching', config: { size: 100, timeout: 60000 } }
    const a = window.AnalyticsNext.AnalyticsBrowser.load({ writeKey: env.key, cdnURL: env.url }, { integrations: { 'Segment.io': io } })
    if (env.mode !== 'calls') {
      await a // loaded: what waits now waits to be sent
      for (let i = 0; i < env.n; i++) a.track('Retried', { i })
      return
    }
    await a.track('Seen', { where: 'home' })
    await a.page('Shop', 'Cart', { q: 1 })
    await a.identify('maria', { plan: 'pro' })
    await a.group('corner-shop', { seats: 3 })
    await a.track('Item Scanned', { sku: '4006' }, { context: { groupId: 'corner-shop' } })
  },
  'rudder-browser': async (env) => {
    await env.script('/sdk/@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js')
    const a = new window.rudderanalytics.RudderAnalytics()
    await new Promise((resolve, reject) => {
      a.load(env.key, env.url, { configUrl: env.url, storage: { type: 'memoryStorage', migrate: false }, sendAdblockPage: false, useBeacon: env.mode === 'leave', onLoaded: resolve, queueOptions: { minRetryDelay: 500, maxRetryDelay: 2000 } })
      setTimeout(() => reject(new Error('the SDK did not load')), 15000)
    })
    if (env.mode !== 'calls') {
      for (let i = 0; i < env.n; i++) a.track('Retried', { i })
      return
    }
    a.track('Seen', { where: 'home' })
    a.page('Shop', 'Cart', { q: 1 })
    a.identify('maria', { plan: 'pro' })
    a.group('corner-shop', { seats: 3 })
    a.track('Item Scanned', { sku: '4006' }, { context: { groupId: 'corner-shop' } })
    a.alias('maria-new')
  },
  'amplitude-browser': async (env) => {
    await env.script('/sdk/@amplitude/analytics-browser/lib/scripts/amplitude-min.js')
    const a = window.amplitude
    await a.init(env.key, { serverUrl: env.url + '/2/httpapi', flushIntervalMillis: env.mode === 'leave' ? 60000 : 500, autocapture: false, fetchRemoteConfig: false, remoteConfig: { fetchRemoteConfig: false } }).promise
    if (env.mode === 'leave') {
      // What its documentation says for pages that are left.
      window.addEventListener('pagehide', () => { a.setTransport('beacon'); a.flush() })
    }
    if (env.mode !== 'calls') {
      for (let i = 0; i < env.n; i++) a.track('Retried', { i })
      return
    }
    await a.track('Seen', { where: 'home' }).promise // or it gets the user that is set while it waits
    a.setUserId('maria')
    a.identify(new a.Identify().set('plan', 'pro').setOnce('first', 1).add('logins', 1))
    a.setGroup('company', 'corner-shop')
    a.groupIdentify('company', 'corner-shop', new a.Identify().set('seats', 3))
    a.track('Item Scanned', { sku: '4006' }, { groups: { company: 'corner-shop' } })
    a.revenue(new a.Revenue().setProductId('p-1').setPrice(2.5).setQuantity(2))
  },
  'posthog-js': async (env) => {
    const { posthog } = await import('/sdk/posthog-js/dist/module.no-external.js')
    posthog.init(env.key, { api_host: env.url, autocapture: false, capture_pageview: false, capture_pageleave: false, disable_session_recording: true, person_profiles: 'identified_only', persistence: 'memory', request_batching: true })
    if (env.mode !== 'calls') {
      for (let i = 0; i < env.n; i++) posthog.capture('Retried', { i })
      return
    }
    posthog.capture('Seen', { where: 'home' })
    posthog.capture('$pageview')
    posthog.identify('maria', { plan: 'pro' }, { since: 2020 })
    posthog.group('company', 'corner-shop', { seats: 3 })
    posthog.capture('Item Scanned', { sku: '4006' })
    posthog.setPersonProperties({ role: 'owner' })
  },
  'mixpanel-browser': async (env) => {
    await env.script('/sdk/mixpanel-browser/dist/mixpanel.umd.js')
    const m = window.mixpanel
    m.init(env.key, { api_host: env.url, batch_flush_interval_ms: env.mode === 'leave' ? 60000 : 1000, persistence: 'localStorage', track_pageview: false, autocapture: false })
    if (env.mode !== 'calls') {
      for (let i = 0; i < env.n; i++) m.track('Retried', { i })
      return
    }
    m.track('Seen', { where: 'home' })
    m.identify('maria')
    m.set_group('company', 'corner-shop')
    m.track('Item Scanned', { sku: '4006' })
    m.people.set({ plan: 'pro' })
    m.people.increment('logins')
    m.get_group('company', 'corner-shop').set({ seats: 3 })
    m.track_pageview()
  },
  'moesif-browser': async (env) => {
    await env.script('/sdk/moesif-browser-js/moesif.min.js')
    const m = window.moesif
    m.init({ applicationId: env.key, host: env.url.replace('http://', ''), batchEnabled: env.mode !== 'calls', batchMaxTime: env.mode === 'leave' ? 60000 : 1000, disableReferer: true, disableFetch: false })
    if (env.mode !== 'calls') {
      for (let i = 0; i < env.n; i++) m.track('Retried', { i })
      return
    }
    m.track('Seen', { where: 'home' })
    m.identifyUser('maria', { plan: 'pro' })
    m.identifyCompany('corner-shop', { seats: 3 }, 'corner.example')
    m.track('Item Scanned', { sku: '4006' })
    m.start()
    await fetch('/api/orders/4711?x=1', { method: 'POST', headers: { Authorization: 'Bearer secret' }, body: '{"n":1}' })
    m.stop()
  }
}

async function main () {
  const lines = readline.createInterface({ input: process.stdin })
  const ended = new Promise((resolve) => lines.on('close', resolve))
  const plan = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)))
  const browser = await chromium.launch({ executablePath: plan.chromium, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--disable-blink-features=AutomationControlled'] })
  const results = {}
  try {
    const queue = [...plan.scenarios]
    const worker = async () => {
      for (let s = queue.shift(); s; s = queue.shift()) {
        const r = results[s.name] = { errors: [], crashes: [] }
        // SDKs take a browser that says it is headless or driven for a robot and send
        // nothing.
        const context = await browser.newContext({ userAgent: 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36' })
        const page = await context.newPage()
        page.on('pageerror', (err) => r.crashes.push(String(err)))
        page.on('console', (m) => { if (/CORS|blocked/.test(m.text())) r.errors.push(m.text()) })
        try {
          await page.goto(plan.page)
          await page.evaluate(async ([env, body]) => {
            env.script = (src) => new Promise((resolve, reject) => {
              const e = document.createElement('script')
              e.src = src
              e.onload = resolve
              e.onerror = () => reject(new Error('no ' + src))
              document.head.appendChild(e)
            })
            await eval('(' + body + ')')(env) // eslint-disable-line no-eval
          }, [{ ...s, errors: undefined }, pages[s.sdk].toString()])
          if (s.mode === 'leave') {
            await page.waitForTimeout(300) // queues are written asynchronously
            await page.goto('about:blank')
          }
        } catch (err) {
          r.errors.push(String(err))
        }
      }
    }
    await Promise.all([worker(), worker(), worker()])
    process.stdout.write('RESULT ' + JSON.stringify(results) + '\n')
    await ended
  } finally {
    await browser.close()
  }
}

main().then(() => process.exit(0), (err) => {
  console.error(err)
  process.exit(1)
})
