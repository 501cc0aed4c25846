{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `anonymous_id` String COMMENT 'The anonymous id that was linked',
    `hour` DateTime('UTC') COMMENT 'Hour in which a link of it begins or ends',
    `events` Int64 COMMENT 'How many of its events stayed with the link that was in force when the hour began',
    `corrected_at` DateTime64(3, 'UTC') COMMENT 'When the link was counted'
)
{{.Definer}}
COMMENT 'Hours of a shared device that count whole for one user although the device changed hands within them, since their events had expired by then. Kept for 60 days'
AS
SELECT app_id, JSONExtractString(reason, 'id') AS anonymous_id, toDateTime(JSONExtractUInt(reason, 'hour'), 'UTC') AS hour, JSONExtractInt(reason, 'events') AS events, corrected_at
FROM {{.Table "correction_plans"}}
WHERE chunk = 0 AND JSONExtractString(reason, 'kind') = 'whole_hour'
