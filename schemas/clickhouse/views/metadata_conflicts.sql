{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `path` String COMMENT 'Key path, without the # and number that tell several values of one event apart',
    `events` UInt64 COMMENT 'Number of values that did not fit',
    `first_seen` DateTime64(6, 'UTC') COMMENT 'When the first of them was received',
    `last_seen` DateTime64(6, 'UTC') COMMENT 'When the last of them was received',
    `last_value` String COMMENT 'JSON text of the last of them',
    `event_names` Array(String) COMMENT 'Up to five names of events that have it'
)
{{.Definer}}
COMMENT 'Key paths of properties and traits with values that do not fit the type of the key'
AS
SELECT
    app_id, path, count() AS events, min(received_at) AS first_seen, max(received_at) AS last_seen,
    argMax(value, received_at) AS last_value, groupUniqArray(5)(event) AS event_names
FROM
(
    SELECT app_id, toString(e.event) AS event, received_at, replaceRegexpOne(kept.1, '#[0-9]+$', '') AS path, kept.2 AS value
    FROM {{.Table "events"}} AS e
    ARRAY JOIN JSONExtractKeysAndValuesRaw(conflicts) AS kept
    WHERE conflicts != ''
)
GROUP BY app_id, path
