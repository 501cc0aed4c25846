{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` String COMMENT 'Name of the metric events that report it',
    `metric_id` String COMMENT 'Metric',
    `metric_name` String COMMENT 'Name of the metric',
    `semantics` LowCardinality(String) COMMENT 'delta, gauge or cumulative',
    `unit` String COMMENT 'Unit of its values',
    `owner` String COMMENT 'Team that is responsible for it',
    `purpose` String COMMENT 'What it is for',
    `catalog_version` Int64 COMMENT 'Version of the catalog',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When that version was applied'
)
{{.Definer}}
COMMENT 'Metrics of the catalog in force, by the names of their events'
AS
SELECT app_id, event, metric_id, metric_name, semantics, unit, owner, purpose, catalog_version, applied_at
FROM {{.Table "catalog_metrics"}} FINAL
WHERE removed = 0
