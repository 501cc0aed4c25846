{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `signal` LowCardinality(String) COMMENT 'Id of the alert''s definition',
    `owner` String COMMENT 'Whose alerts',
    `alerts` UInt64 COMMENT 'Alerts that fired',
    `retracted` UInt64 COMMENT 'Those that a correction made untrue',
    `acknowledged` UInt64 COMMENT 'Those that somebody acknowledged',
    `useful` UInt64 COMMENT 'Those with the feedback useful',
    `false_positives` UInt64 COMMENT 'Those with the feedback false_positive',
    `precision` Nullable(Float64) COMMENT 'useful / (useful + false_positives); empty without feedback'
)
{{.Definer}}
COMMENT 'How good alerts are, by the feedback on them, per definition and owner'
AS
SELECT app_id, signal, owner, count() AS alerts, countIf(state = 'retracted') AS retracted, countIf(acknowledged_by != '') AS acknowledged,
    countIf(feedback = 'useful') AS useful, countIf(feedback = 'false_positive') AS false_positives, useful / nullIf(useful + false_positives, 0) AS precision
FROM {{.View "alerts"}}
GROUP BY app_id, signal, owner
ORDER BY app_id, signal, owner
