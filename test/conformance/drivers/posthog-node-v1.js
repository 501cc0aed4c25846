// The same SDK with its second generation of the capture API.
'use strict'
process.env.POSTHOG_CAPTURE_MODE = 'v1'
module.exports = require('./posthog-node.js')
