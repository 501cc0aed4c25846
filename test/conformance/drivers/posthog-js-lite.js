'use strict'
const { PostHog } = require('posthog-js-lite')

// Each event goes at once: the SDK has no end to wait for but that of its queue.
const client = (env) => {
  const c = new PostHog(env.key, { host: env.url, flushAt: 1, flushInterval: 600000, fetchRetryDelay: 200, requestTimeout: 4000, persistence: 'memory', preloadFeatureFlags: false, disableRemoteConfig: true })
  c.on('error', env.fail)
  return c
}

exports.calls = async (env) => {
  const c = client(env)
  c.capture('Seen', { where: 'home' })
  c.identify('maria', { plan: 'pro' })
  c.group('company', 'corner-shop', { seats: 3 })
  c.capture('Item Scanned', { sku: '4006' }, { timestamp: new Date('2026-01-02T03:04:05.678Z') })
  c.alias('maria-new')
  await c.flush()
  await c.shutdown(20000)
}

exports.tracks = async (env) => {
  for (let i = 0; i < env.n; i++) {
    const c = client(env)
    c.identify('u' + i)
    c.capture('Retried', { i })
    await c.shutdown(30000)
  }
}
