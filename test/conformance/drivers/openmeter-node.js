'use strict'
const { OpenMeter } = require('@openmeter/sdk')

const event = (id, type, subject) => ({ specversion: '1.0', id, source: '/pos/7', type, subject, time: new Date('2026-01-02T03:04:05.678Z'), data: { sku: '4006' } })

exports.calls = async (env) => {
  const c = new OpenMeter({ baseUrl: env.url, apiKey: env.key })
  await c.events.ingest(event('o-1', 'item.scanned', 'corner shop'))
  await c.events.ingest([event('o-2', 'item.scanned', 'corner shop'), event('o-3', 'item.scanned', 'corner shop')])
}
