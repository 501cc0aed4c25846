'use strict'
const http = require('http')
const moesif = require('moesif-nodejs')

// Its settings are the process's, so scenarios go one after the other.
exports.alone = true

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const client = (env) => moesif({
  applicationId: env.key,
  baseUri: env.url,
  batchSize: 2,
  batchMaxTime: 600,
  callback: env.fail,
  identifyUser: () => 'maria',
  identifyCompany: () => 'corner-shop',
  getMetadata: () => ({ region: 'eu' })
})

// A server of one route, called once through the middleware.
const serve = async (middleware) => {
  const server = http.createServer((req, res) => middleware(req, res, () => {
    res.statusCode = 201
    res.end('{"ok":true}')
  }))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  await new Promise((resolve, reject) => {
    const req = http.request({ port: server.address().port, host: '127.0.0.1', method: 'POST', path: '/v1/orders/4711?x=1', headers: { Authorization: 'Bearer secret' } }, (res) => { res.resume(); res.on('end', resolve) })
    req.on('error', reject)
    req.end('{"n":1}')
  })
  await new Promise((resolve) => server.close(resolve))
}

exports.calls = async (env) => {
  const m = client(env)
  await m.updateUser({ userId: 'maria', companyId: 'corner-shop', metadata: { plan: 'pro' } })
  await m.updateUsersBatch([{ userId: 'jo' }, { userId: 'ann' }])
  await m.updateCompany({ companyId: 'corner-shop', companyDomain: 'corner.example', metadata: { seats: 3 } })
  await m.updateCompaniesBatch([{ companyId: 'other' }])
  await m.updateSubscription({ subscriptionId: 's-1', companyId: 'corner-shop', status: 'active' })
  await m.updateSubscriptionsBatch([{ subscriptionId: 's-2', companyId: 'other', status: 'active' }])
  await m.sendAction({ actionName: 'Item Scanned', userId: 'maria', companyId: 'corner-shop', transactionId: 'm-action', metadata: { sku: '4006' }, request: { time: '2026-01-02T03:04:05.678', uri: 'https://shop.example/scan' } })
  await m.sendActionsBatch([{ actionName: 'Paid', userId: 'maria', request: { uri: '/' } }])
  await serve(m)
  await wait(2500) // its batcher has no end to wait for
}

exports.tracks = async (env) => {
  const m = client(env)
  const batch = []
  for (let i = 0; i < env.n; i++) batch.push({ actionName: 'Retried', userId: 'u' + i, transactionId: env.name + '-' + i, request: { uri: '/' }, metadata: { i } })
  // The SDK has no timeout of its own.
  await Promise.race([m.sendActionsBatch(batch), wait(6000).then(() => { throw new Error('no answer') })])
}
