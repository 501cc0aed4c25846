// Runs one SDK against the addresses that the plan on standard input names, and
// prints what the SDK said of each. A driver exports calls(env), which makes
// every kind of call, and tracks(env), which sends env.n events; both return
// when the SDK has nothing left to do. env is {url, key, n, call, fail}.
'use strict'

const path = require('path')

async function main () {
  let text = ''
  for await (const chunk of process.stdin) text += chunk
  const plan = JSON.parse(text)
  const results = {}
  let current = null
  for (const event of ['unhandledRejection', 'uncaughtException']) {
    process.on(event, (err) => {
      for (const r of current ? [current] : Object.values(results)) r.crashes.push(event + ': ' + String(err && err.message))
    })
  }
  const driver = require(path.join(__dirname, plan.sdk + '.js'))
  const one = async (s) => {
    const r = results[s.name] = { errors: [], crashes: [] }
    if (driver.alone) current = r
    const env = {
      ...s,
      fail: (err) => { if (err) r.errors.push(String((err && err.message) || err)) }
    }
    // An SDK that waits for what never comes must not take the others with it;
    // the timer also keeps the process alive while only promises are pending.
    const timer = new Promise((resolve, reject) => setTimeout(() => reject(new Error('the driver waited for a minute')), 60000))
    try {
      await Promise.race([s.calls ? driver.calls(env) : driver.tracks(env), timer])
    } catch (err) {
      env.fail(err)
    }
  }
  if (driver.alone) {
    for (const s of plan.scenarios) await one(s)
  } else {
    await Promise.all(plan.scenarios.map(one))
  }
  process.stdout.write('\nRESULT ' + JSON.stringify(results) + '\n', () => process.exit(0))
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
