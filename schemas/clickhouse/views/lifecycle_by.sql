{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `new` UInt64 COMMENT 'Active for the first time ever',
    `returning` UInt64 COMMENT 'Active in this period and in the one before',
    `resurrected` UInt64 COMMENT 'Active in this period, not in the one before, and at some time before that',
    `dormant` UInt64 COMMENT 'Active in the period before and not in this one',
    `quick_ratio` Nullable(Float64) COMMENT '(new + resurrected) / dormant'
)
{{.Definer}}
COMMENT 'Growth accounting of people or of accounts. Parameters: app, from, to, zone, period, unit (person or account).'
AS
{{template "lifecycle_query" .Insight}}
