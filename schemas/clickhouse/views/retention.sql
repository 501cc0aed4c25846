{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `cohort` Date COMMENT 'First day of the period in which they started',
    `age` UInt32 COMMENT 'Number of periods since then',
    `cohort_size` UInt64 COMMENT 'Size of the cohort',
    `retained_on` UInt64 COMMENT 'Those who came back in that period',
    `retained_on_or_after` UInt64 COMMENT 'Those who came back in that period or a later one',
    `rate_on` Float64 COMMENT 'retained_on / cohort_size',
    `rate_on_or_after` Float64 COMMENT 'retained_on_or_after / cohort_size',
    `complete` UInt8 COMMENT '1: the period of that age ends before the end of the range'
)
{{.Definer}}
COMMENT 'Retention of people by the period of their first activity. Parameters: app, from, to, zone, period.'
AS
{{template "retention_query" (((.Insight.With "unit" "'person'").With "start" "CAST([], 'Array(String)')").With "return" "CAST([], 'Array(String)')")}}
