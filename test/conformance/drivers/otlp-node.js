'use strict'
const { LoggerProvider, BatchLogRecordProcessor } = require('@opentelemetry/sdk-logs')
const { resourceFromAttributes } = require('@opentelemetry/resources')
const { diag, DiagLogLevel } = require('@opentelemetry/api')

const exporters = {
  json: () => require('@opentelemetry/exporter-logs-otlp-http').OTLPLogExporter,
  proto: () => require('@opentelemetry/exporter-logs-otlp-proto').OTLPLogExporter
}

const client = (env, form) => {
  const Exporter = exporters[form]()
  const exporter = new Exporter({ url: env.url + '/v1/logs', headers: { Authorization: 'Bearer ' + env.key }, timeoutMillis: env.fault === 'no reply' ? 4000 : 15000, compression: form === 'proto' ? 'gzip' : 'none' })
  const wrapped = exporter.export.bind(exporter)
  exporter.export = (records, done) => wrapped(records, (r) => { env.fail(r.error); done(r) })
  const provider = new LoggerProvider({
    resource: resourceFromAttributes({ 'service.name': 'pos', 'account.id': 'corner-shop' }),
    processors: [new BatchLogRecordProcessor({ exporter, exportTimeoutMillis: 30000 })]
  })
  return provider
}

exports.drive = (form) => ({
  calls: async (env) => {
    const p = client(env, form)
    const l = p.getLogger('scanner', '1.0')
    l.emit({ eventName: 'item.scanned', timestamp: new Date('2026-01-02T03:04:05.678Z'), attributes: { 'user.id': 'maria', price: 1.5, ok: true, list: ['a', 2] }, body: { sku: '4006', deep: { n: -5 } } })
    l.emit({ body: 'a line of a log' })
    await p.forceFlush()
    await p.shutdown()
  },
  tracks: async (env) => {
    const p = client(env, form)
    const l = p.getLogger('scanner', '1.0')
    for (let i = 0; i < env.n; i++) l.emit({ eventName: 'Retried', attributes: { 'user.id': 'u' + i, i } })
    await p.forceFlush().catch(env.fail)
    await p.shutdown().catch(env.fail)
  }
})
diag.setLogger({ error () {}, warn () {}, info () {}, debug () {}, verbose () {} }, DiagLogLevel.NONE)
