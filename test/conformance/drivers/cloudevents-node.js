'use strict'
const { CloudEvent, HTTP, Mode, emitterFor, httpTransport } = require('cloudevents')

const event = (id, extra) => new CloudEvent({ id, source: '/pos/7', type: 'item.scanned', subject: 'corner-shop', time: '2026-01-02T03:04:05.678Z', userid: 'maria', data: { sku: '4006' }, ...extra })

const emitter = (env, mode) => {
  const emit = emitterFor(httpTransport(env.url + env.path), { binding: HTTP, mode })
  return async (e) => {
    const res = await emit(e, { headers: { Authorization: 'Bearer ' + env.key } })
    return res
  }
}

exports.calls = async (env) => {
  await emitter(env, Mode.STRUCTURED)(event('structured'))
  await emitter(env, Mode.BINARY)(event('binary', { userid: 'maría' }))
  // The SDK has no emitter for batches; the form is its own.
  await fetch(env.url + env.path, { method: 'POST', headers: { 'Content-Type': 'application/cloudevents-batch+json', Authorization: 'Bearer ' + env.key }, body: JSON.stringify([event('b-1'), event('b-2')]) })
}

exports.tracks = async (env) => {
  const emit = emitter(env, Mode.BINARY)
  const timeout = () => new Promise((resolve, reject) => setTimeout(() => reject(new Error('no answer')), 6000))
  for (let i = 0; i < env.n; i++) await Promise.race([emit(event('t-' + i, { type: 'Retried', userid: 'u' + i })), timeout()]).catch(env.fail)
}
