'use strict'
const module_ = require('csb-node')
const CSB = module_.default || module_.CSB || module_

const client = (env) => new CSB(env.url, env.key)

exports.calls = async (env) => {
  const c = client(env)
  await c.login('corner-shop', 'maria')
  await c.account('corner-shop', { plan: 'pro', seats: 3 })
  await c.user('corner-shop', 'maria', { email: 'm@example.com' })
  await c.subscription('corner-shop', 's-1', { plan_name: 'pro' })
  await c.invoice('corner-shop', 's-1', 'i-1', { amount: 12.5 })
  await c.feature('corner-shop', 'maria', 'pos', 'checkout', 'scan-item', 12)
  await c.feature('corner-shop', 'maria', 'pos', 'checkout', 'pay')
  await c.logout('corner-shop', 'maria')
}

exports.tracks = async (env) => {
  const c = client(env)
  for (let i = 0; i < env.n; i++) await c.feature('corner-shop', 'u' + i, 'pos', 'checkout', 'Retried').catch(env.fail)
}
