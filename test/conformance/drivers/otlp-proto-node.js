'use strict'
module.exports = require('./otlp-node.js').drive('proto')
