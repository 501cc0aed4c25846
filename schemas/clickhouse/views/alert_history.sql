{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was said',
    `alert_id` String COMMENT 'Id of the alert, or of the stay in a segment or band',
    `message_id` String COMMENT 'Id of the message that receivers got',
    `signal_use` LowCardinality(String) COMMENT 'alert, segment or health',
    `signal` LowCardinality(String) COMMENT 'Id of the definition',
    `band` LowCardinality(String) COMMENT 'Band of a health score',
    `version` UInt32 COMMENT 'Version of the definition',
    `level` LowCardinality(String) COMMENT 'account, user or app',
    `subject` String COMMENT 'Account, user or app',
    `state` LowCardinality(String) COMMENT 'firing, resolved, retracted, acknowledged, entered or left',
    `owner` String COMMENT 'Who was told',
    `reason` String COMMENT 'Why, in words and numbers',
    `value` Float64 COMMENT 'Measured value, or score',
    `limit_value` Float64 COMMENT 'Limit, or beginning of the band',
    `at` DateTime64(3, 'UTC') COMMENT 'End of the day or hour that the value is of',
    `delivered` UInt8 COMMENT '1: it was for delivery; 0: recorded only',
    `acted_by` String COMMENT 'Who acknowledged',
    `feedback` LowCardinality(String) COMMENT 'useful or false_positive',
    `note` String COMMENT 'Note of an acknowledgement'
)
{{.Definer}}
COMMENT 'All that alerts, segments and health bands said, with the facts'
AS
SELECT app_id, written_at, alert_id, message_id, signal_use, signal, band, version, level, subject, state, owner, reason, value, limit_value, at, toUInt8(NOT silent) AS delivered, acted_by, feedback, note
FROM {{.Table "signal_log"}} FINAL
ORDER BY written_at, log_offset
