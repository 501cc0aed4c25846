'use strict'
const amplitude = require('@amplitude/analytics-node')

const client = async (env) => {
  const c = amplitude.createInstance()
  await c.init(env.key, { serverUrl: env.url + (env.batch ? '/batch' : '/2/httpapi'), flushIntervalMillis: 100, flushMaxRetries: 5, logLevel: amplitude.Types.LogLevel.None }).promise
  return c
}

// Waits for the SDK's word on an event: flush() gives up retrying.
const settle = async (env, promises) => {
  for (const p of promises) {
    const r = await p.promise
    if (r.code !== 200) env.fail(r.code + ' ' + r.message)
  }
}

exports.calls = async (env) => {
  const c = await client(env)
  const who = { user_id: 'maria', device_id: 'd-1' }
  const identify = new amplitude.Identify()
  identify.set('plan', 'pro').setOnce('first', 1).add('logins', 1).append('tags', 'a').unset('gone')
  const seats = new amplitude.Identify()
  seats.set('seats', 3)
  const revenue = new amplitude.Revenue()
  revenue.setPrice(2.5).setQuantity(2).setProductId('p-1')
  await settle(env, [
    c.track('Item Scanned', { sku: '4006' }, { ...who, groups: { company: 'corner-shop' }, time: Date.parse('2026-01-02T03:04:05.678Z'), insert_id: 'm-track' }),
    c.identify(identify, who),
    c.setGroup('company', 'corner-shop', who),
    c.groupIdentify('company', 'corner-shop', seats, who),
    c.revenue(revenue, who)
  ])
}

exports.tracks = async (env) => {
  const c = await client(env)
  const all = []
  for (let i = 0; i < env.n; i++) all.push(c.track('Retried', { i }, { user_id: 'u' + i, device_id: 'd' + i }))
  await settle(env, all)
}
