'use strict'
const { Analytics } = require('@segment/analytics-node')

const client = (env) => {
  const a = new Analytics({ writeKey: env.key, host: env.url, flushAt: 100, flushInterval: 200, httpRequestTimeout: 4000, maxRetries: 5 })
  a.on('error', (err) => env.fail(err.reason || err.code || err))
  return a
}

exports.calls = async (env) => {
  const a = client(env)
  const context = { groupId: 'corner-shop' }
  a.track({ userId: 'maria', event: 'Item Scanned', properties: { sku: '4006' }, context, timestamp: new Date('2026-01-02T03:04:05.678Z'), messageId: 'm-track' })
  a.identify({ userId: 'maria', anonymousId: 'anon-1', traits: { plan: 'pro' }, messageId: 'm-identify' })
  a.group({ userId: 'maria', groupId: 'corner-shop', traits: { seats: 3 }, messageId: 'm-group' })
  a.page({ userId: 'maria', name: 'Cart', category: 'Shop', properties: { path: '/cart' }, messageId: 'm-page' })
  a.screen({ anonymousId: 'anon-1', name: 'Home', messageId: 'm-screen' })
  a.alias({ userId: 'maria', previousId: 'maria-old', messageId: 'm-alias' })
  await a.closeAndFlush({ timeout: 20000 })
}

exports.tracks = async (env) => {
  const a = client(env)
  for (let i = 0; i < env.n; i++) a.track({ userId: 'u' + i, event: 'Retried', properties: { i } })
  await a.closeAndFlush({ timeout: 30000 })
}
