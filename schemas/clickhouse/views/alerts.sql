{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `alert_id` String COMMENT 'Id of the alert, the same from firing to its end',
    `signal` LowCardinality(String) COMMENT 'Id of the definition',
    `version` UInt32 COMMENT 'Version of the definition that it fired under',
    `level` LowCardinality(String) COMMENT 'account, user or app',
    `subject` String COMMENT 'Account, user or app that it is about',
    `state` LowCardinality(String) COMMENT 'firing, resolved, or retracted: a correction of history made it untrue',
    `severity` LowCardinality(String) COMMENT 'info, warning or critical',
    `owner` String COMMENT 'Trait owner of the account, else owner of the definition',
    `title` String COMMENT 'Description of the definition',
    `reason` String COMMENT 'Why, in words and numbers, as of the last change of state',
    `value` Float64 COMMENT 'Measured value when it fired',
    `limit_value` Float64 COMMENT 'Limit that it was compared with',
    `fired_at` DateTime64(3, 'UTC') COMMENT 'End of the day or hour in which it fired',
    `ended_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'End of the day or hour in which it ended',
    `playbook` String COMMENT 'What to do',
    `acknowledged_by` String COMMENT 'Who acknowledged it last; empty: nobody',
    `feedback` LowCardinality(String) COMMENT 'useful or false_positive, as last given',
    `note` String COMMENT 'Note of the last acknowledgement'
)
{{.Definer}}
COMMENT 'Alerts, newest first: a row for each, with its state, why it fired and what was said about it'
AS
SELECT app_id, alert_id, any(signal) AS signal, argMinIf(version, order, not_ack) AS version, any(level) AS level, any(subject) AS subject,
    argMaxIf(state, order, not_ack) AS state, argMaxIf(severity, order, not_ack) AS severity, argMaxIf(owner, order, not_ack) AS owner, argMaxIf(title, order, not_ack) AS title,
    argMaxIf(reason, order, not_ack) AS reason, argMinIf(value, order, not_ack) AS value, argMinIf(limit_value, order, not_ack) AS limit_value,
    argMaxIf(valid_from, order, not_ack) AS fired_at, argMaxIf(tuple(valid_to), order, not_ack).1 AS ended_at, argMaxIf(playbook, order, not_ack) AS playbook,
    argMaxIf(acted_by, order, NOT not_ack) AS acknowledged_by, argMaxIf(feedback, order, NOT not_ack AND feedback != '') AS feedback, argMaxIf(note, order, NOT not_ack) AS note
FROM (SELECT *, (written_at, log_offset) AS order, state != 'acknowledged' AS not_ack FROM {{.Table "signal_log"}} FINAL WHERE signal_use = 'alert')
GROUP BY app_id, alert_id
ORDER BY fired_at DESC, app_id, alert_id
