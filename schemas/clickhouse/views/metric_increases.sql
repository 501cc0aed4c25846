-- What each point adds to a sum: a delta itself, a cumulative number what it has grown
-- by. A cumulative number that names where its period starts counts from there; of
-- others the first one counts in full, and one below the one before it has started
-- anew. A gauge, and a metric that no catalog declares, adds nothing.
{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `unit` String COMMENT 'Unit of the value',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Start of the period that the number is of',
    `period_end` DateTime64(6, 'UTC') COMMENT 'End of the period; equal to the start: the number is of an instant',
    `at` DateTime64(6, 'UTC') COMMENT 'Instant that a gauge or a cumulative number is of: the last one of its period',
    `value` Float64 COMMENT 'The number',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Timestamp of the report that counts, as it was sent',
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received that report',
    `series` UInt64 COMMENT 'Reports of the same account, actor and dimensions: all names of one user are one actor',
    `value_before` Float64 COMMENT 'The number before it in its series; 0: none',
    `place` UInt64 COMMENT 'Its place in the series, from 1',
    `increase` Nullable(Float64) COMMENT 'What it adds to a sum; NULL: nothing, as a gauge or a metric that no catalog declares'
)
{{.Definer}}
COMMENT 'The rows of metric_points with what each adds to a sum'
AS
SELECT
    *,
    multiIf(semantics = 'delta', value, semantics != 'cumulative', NULL, place = 1 OR value < value_before, value, value - value_before) AS increase
FROM
(
    SELECT *, lagInFrame(value, 1, 0.) OVER w AS value_before, row_number() OVER w AS place
    FROM {{.View "metric_points"}}
    WINDOW w AS (
        PARTITION BY app_id, metric_id, number, series, if(period_end > period_start, period_start, toDateTime64(0, 6, 'UTC'))
        ORDER BY period_end, said_at, received_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
