'use strict'
const RudderAnalytics = require('@rudderstack/rudder-sdk-node')

const client = (env) => new RudderAnalytics(env.key, {
  dataPlaneUrl: env.url, flushAt: 100, flushInterval: 600000, errorHandler: env.fail, retryCount: 4, axiosConfig: { timeout: 4000 }
})

const flush = (a, env) => new Promise((resolve) => a.flush((err) => { env.fail(err); resolve() })).catch(env.fail)

exports.calls = async (env) => {
  const a = client(env)
  const context = { groupId: 'corner-shop' }
  a.track({ userId: 'maria', event: 'Item Scanned', properties: { sku: '4006' }, context, timestamp: new Date('2026-01-02T03:04:05.678Z') })
  a.identify({ userId: 'maria', anonymousId: 'anon-1', traits: { plan: 'pro' } })
  a.group({ userId: 'maria', groupId: 'corner-shop', traits: { seats: 3 } })
  a.page({ userId: 'maria', name: 'Cart', properties: { path: '/cart' } })
  a.screen({ userId: 'maria', name: 'Home' })
  a.alias({ userId: 'maria', previousId: 'maria-old' })
  await flush(a, env)
}

exports.tracks = async (env) => {
  const a = client(env)
  for (let i = 0; i < env.n; i++) a.track({ userId: 'u' + i, event: 'Retried', properties: { i } })
  await flush(a, env)
}
