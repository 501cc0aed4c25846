{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `month` Date COMMENT 'First day of the month; a delta of a longer period counts where it starts',
    `value` Nullable(Float64) COMMENT 'Value of the month; NULL: no catalog declares the metric',
    `points` UInt64 COMMENT 'Number of points that it is made of'
)
{{.Definer}}
COMMENT 'Metrics by month: the sum of deltas, the last gauge, or the growth of cumulative numbers'
AS
SELECT
    app_id, metric_id, number, meaning AS semantics, account_id, actor_id, actor_kind, dimensions, month,
    if(meaning = 'gauge', toNullable(last_value), total) AS value, points
FROM
(
    SELECT
        app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, any(i.semantics) AS meaning,
        toStartOfMonth(if(i.semantics = 'delta', i.period_start, i.at)) AS month,
        argMax(i.value, (i.at, i.said_at, i.received_at)) AS last_value, sumKahanOrNull(i.increase) AS total, count() AS points
    FROM {{.View "metric_increases"}} AS i
    GROUP BY app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, month
)
