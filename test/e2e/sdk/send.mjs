// Sends every kind of call through @segment/analytics-node and prints, one JSON
// object a line, each event as the SDK says that it delivered it.
//
//   node send.mjs <gateway URL> <write key> <rounds> <node_modules folder>
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [host, writeKey, rounds, modules] = process.argv.slice(2)
const require = createRequire(join(modules, 'anchor.js'))
const { Analytics } = require('@segment/analytics-node')

const analytics = new Analytics({ host, writeKey, flushAt: 20, flushInterval: 200, maxRetries: 10 })
analytics.on('error', (err) => {
  console.error('sdk error:', err.code, err.reason ?? err)
  process.exitCode = 1
})

const sent = []
function call(kind, message) {
  sent.push(new Promise((resolve) => {
    analytics[kind](message, (err, ctx) => {
      if (err) {
        console.error('sdk could not deliver', kind, err)
        process.exitCode = 1
      }
      resolve(ctx.event)
    })
  }))
}

for (let n = 0; n < Number(rounds); n++) {
  const userId = `sdk-user-${n}`
  const anonymousId = `sdk-anon-${n}`
  const account = `sdk-acct-${n % 3}`
  const context = { groupId: account }
  call('identify', { userId, traits: { email: `${userId}@example.test`, role: 'cashier' }, context })
  call('group', { userId, groupId: account, traits: { name: `Shop ${n % 3}` } })
  call('track', { userId, event: 'Item Scanned', properties: { sku: `SKU-${n}`, price: 1.5, 'store.name': 'Nørrebro "5"' }, context })
  call('track', { userId, event: 'scanned_with_a_new_device', context })
  call('track', { userId, event: 'Invoice Generated', properties: { total: 12 }, timestamp: new Date(Date.now() - 26 * 3600_000), context })
  call('track', { anonymousId, event: 'Loyalty program opt-in', context })
  call('page', { anonymousId, name: 'Home', category: 'Kiosk', properties: { path: '/' }, context })
  call('screen', { userId, name: 'Till', context })
  call('alias', { userId, previousId: `sdk-old-${n}`, context })
}
await analytics.closeAndFlush({ timeout: 30_000 })
for (const event of await Promise.all(sent)) console.log(JSON.stringify(event))
