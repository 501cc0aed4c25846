-- An event name that a later version maps is no longer listed once its history has
-- moved with it.
{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` LowCardinality(String) COMMENT 'Event name',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `first_seen` DateTime('UTC') COMMENT 'Hour of the first event',
    `last_seen` DateTime('UTC') COMMENT 'Hour of the last event'
)
{{.Definer}}
COMMENT 'Event names that match no feature of the catalog, with the usage counted for them today'
AS
SELECT app_id, event, sum(n) AS events, sum(q) AS quantity, min(hour) AS first_seen, max(hour) AS last_seen
FROM
(
    SELECT app_id, toString(u.event) AS event, hour, sum(u.events) AS n, sum(u.quantity) AS q
    FROM {{.Table "usage_hourly"}} AS u
    WHERE feature_id = ''
    GROUP BY app_id, event, hour
    HAVING n != 0 OR q != 0
)
GROUP BY app_id, event
