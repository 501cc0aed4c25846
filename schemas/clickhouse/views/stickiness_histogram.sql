{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `days_active` UInt64 COMMENT 'Number of days with activity',
    `people` UInt64 COMMENT 'People who were active on that many days of the range'
)
{{.Definer}}
COMMENT 'How many people were active on 1, 2, 3, ... days of a range. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, days_active, count() AS people
FROM
(
    SELECT uniqExact(day) AS days_active
    FROM ({{template "counted_usage" .Insight}})
    WHERE active
    GROUP BY actor_kind, actor_id
)
GROUP BY days_active
ORDER BY days_active
