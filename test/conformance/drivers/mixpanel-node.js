'use strict'
const Mixpanel = require('mixpanel')

const client = (env) => {
  const u = new URL(env.url)
  return Mixpanel.init(env.key, { host: u.hostname, port: u.port, protocol: 'http', path: u.pathname === '/' ? '' : u.pathname, key: env.key, keepAlive: false })
}

const call = (env, fn) => new Promise((resolve) => {
  const timer = setTimeout(() => { env.fail('no answer'); resolve() }, 6000) // the SDK has no timeout of its own
  fn((err) => {
    clearTimeout(timer)
    // track_batch hands over a list of errors.
    env.fail(Array.isArray(err) ? err[0] : err)
    resolve()
  })
})

exports.calls = async (env) => {
  const m = client(env)
  await call(env, (done) => m.track('Item Scanned', { distinct_id: 'maria', $insert_id: 'm-track', sku: '4006', company: 'corner-shop', time: new Date('2026-01-02T03:04:05.678Z') }, done))
  await call(env, (done) => m.track_batch([{ event: 'A', properties: { distinct_id: 'maria', $insert_id: 'm-a', q: '>>>???ü' } }, { event: 'B', properties: { $user_id: 'maria', $device_id: 'd-1', $insert_id: 'm-b' } }], {}, done))
  await call(env, (done) => m.import('Old', new Date('2020-01-01T00:00:00Z'), { distinct_id: 'maria', $insert_id: 'm-old' }, done))
  await call(env, (done) => m.import_batch([{ event: 'Older', properties: { time: new Date('2019-01-01T00:00:00Z'), distinct_id: 'maria', $insert_id: 'm-older' } }], done))
  await call(env, (done) => m.alias('anon-1', 'maria', done))
  await call(env, (done) => m.people.set('maria', { plan: 'pro' }, done))
  await call(env, (done) => m.people.set_once('maria', 'first', 1, done))
  await call(env, (done) => m.people.increment('maria', 'logins', done))
  await call(env, (done) => m.people.append('maria', 'tags', 'a', done))
  await call(env, (done) => m.people.union('maria', { list: ['x'] }, done))
  await call(env, (done) => m.people.remove('maria', { list: 'x' }, done))
  await call(env, (done) => m.people.unset('maria', 'plan', done))
  await call(env, (done) => m.people.delete_user('jo', done))
  await call(env, (done) => m.groups.set('company', 'corner-shop', { seats: 3 }, done))
}

exports.tracks = async (env) => {
  const m = client(env)
  const batch = []
  for (let i = 0; i < env.n; i++) batch.push({ event: 'Retried', properties: { distinct_id: 'u' + i, $insert_id: env.name + '-' + i, i } })
  await call(env, (done) => m.track_batch(batch, {}, done))
}
