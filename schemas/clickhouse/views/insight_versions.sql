{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `version` UInt32 COMMENT 'Counts up with each apply; the highest one is in force',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When it was applied',
    `applied_by` String COMMENT 'Who applied it',
    `rules` UInt64 COMMENT 'Number of definitions in it'
)
{{.Definer}}
COMMENT 'Versions of the definitions of insights and signals'
AS
SELECT app_id, version, any(applied_at) AS applied_at, any(applied_by) AS applied_by, countIf(use != 'version') AS rules
FROM {{.Table "insight_rules"}}
GROUP BY app_id, version
ORDER BY app_id, version
