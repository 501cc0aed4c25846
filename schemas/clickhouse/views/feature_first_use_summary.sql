{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature of the catalog',
    `new_people` UInt64 COMMENT 'People who used it for the first time ever',
    `abandoned_people` UInt64 COMMENT 'Those of them who used it on one day alone, and not in the 28 days after it',
    `median_hours_to_first_use` Float64 COMMENT 'Median of the hours from the first usage of anything to the first use'
)
{{.Definer}}
COMMENT 'First use of each feature in a range: how many people, how long it took them, how many abandoned it. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, feature_id, count() AS new_people, countIf(abandoned) AS abandoned_people, quantileExactInclusive(0.5)(hours_to_first_use) AS median_hours_to_first_use
FROM ({{template "first_use" .Insight}})
GROUP BY feature_id
ORDER BY feature_id
