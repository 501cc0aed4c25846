{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `unit` String COMMENT 'Unit of the value',
    `value` Float64 COMMENT 'The number',
    `at` DateTime64(6, 'UTC') COMMENT 'Instant that a gauge or a cumulative number is of: the last one of its period',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Start of the period that the number is of',
    `period_end` DateTime64(6, 'UTC') COMMENT 'End of the period; equal to the start: the number is of an instant'
)
{{.Definer}}
COMMENT 'The latest number of each metric of each user'
AS
SELECT app_id, actor_id AS user_id, metric_id, number, dimensions, semantics, unit, value, at, period_start, period_end
FROM {{.View "metric_points"}}
WHERE actor_kind = 'user'
ORDER BY at DESC, said_at DESC, received_at DESC
LIMIT 1 BY app_id, user_id, metric_id, number, dimensions
