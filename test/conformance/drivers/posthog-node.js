'use strict'
const { PostHog } = require('posthog-node')

const client = (env, options) => {
  const c = new PostHog(env.key, { host: env.url, flushAt: 100, flushInterval: 600000, fetchRetryDelay: 200, requestTimeout: 4000, ...options })
  c.on('error', env.fail)
  return c
}

exports.client = client

exports.calls = async (env) => {
  const c = client(env)
  c.capture({ distinctId: 'maria', event: 'Item Scanned', properties: { sku: '4006', $set: { tier: 'gold' }, $set_once: { first: 1 } }, groups: { company: 'corner-shop' }, timestamp: new Date('2026-01-02T03:04:05.678Z') })
  c.capture({ event: 'Job Ran' })
  c.identify({ distinctId: 'maria', properties: { plan: 'pro', $set_once: { since: 2020 }, $anon_distinct_id: 'anon-1' } })
  c.groupIdentify({ groupType: 'company', groupKey: 'corner-shop', properties: { seats: 3 } })
  c.alias({ distinctId: 'maria', alias: 'maria-old' })
  c.capture({ distinctId: 'maria', event: '$pageview', properties: { $current_url: 'https://shop.example/cart', $pathname: '/cart' } })
  await c.captureImmediate({ distinctId: 'maria', event: 'At Once' })
  await c.shutdown(20000)
}

exports.tracks = async (env) => {
  const c = client(env)
  for (let i = 0; i < env.n; i++) c.capture({ distinctId: 'u' + i, event: 'Retried', properties: { i } })
  await c.shutdown(30000)
}
