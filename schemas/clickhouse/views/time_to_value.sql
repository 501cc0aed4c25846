{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `people` UInt64 COMMENT 'People first seen in the range',
    `activated` UInt64 COMMENT 'Those of them with an activation event, whenever',
    `median_seconds_to_activation` Nullable(Float64) COMMENT 'Median time from the first event of any kind to it',
    `reached_value` UInt64 COMMENT 'Those with a value event, whenever',
    `value_rate` Nullable(Float64) COMMENT 'reached_value / people',
    `median_seconds_to_value` Nullable(Float64) COMMENT 'Median time from the first event of any kind to the first value event',
    `p90_seconds_to_value` Nullable(Float64) COMMENT '90th percentile of it'
)
{{.Definer}}
COMMENT 'Time to first value: from the first event of any kind, also as a visitor, to the first value event. Parameters: app, from, to, zone.'
AS
WITH at -> (toUnixTimestamp64Micro(assumeNotNull(at)) - toUnixTimestamp64Micro(first_seen_at)) / 1000000 AS seconds
SELECT toLowCardinality({app:String}) AS app_id, count() AS people, countIf(activation_at IS NOT NULL) AS activated, quantileExactInclusiveOrNullIf(0.5)(seconds(activation_at), activation_at IS NOT NULL) AS median_seconds_to_activation,
    countIf(value_at IS NOT NULL) AS reached_value, reached_value / nullIf(people, 0) AS value_rate,
    quantileExactInclusiveOrNullIf(0.5)(seconds(value_at), value_at IS NOT NULL) AS median_seconds_to_value,
    quantileExactInclusiveOrNullIf(0.9)(seconds(value_at), value_at IS NOT NULL) AS p90_seconds_to_value
FROM ({{template "milestones" .Insight}})
WHERE toDate(first_seen_at, {zone:String}) >= {from:Date} AND toDate(first_seen_at, {zone:String}) < {to:Date}
