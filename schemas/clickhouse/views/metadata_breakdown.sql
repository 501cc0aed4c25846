{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `value` String COMMENT 'Value of the key as text; empty: the event has none',
    `events` UInt64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that they stand for',
    `people` UInt64 COMMENT 'People with such an event',
    `accounts` UInt64 COMMENT 'Accounts with such an event'
)
{{.Definer}}
COMMENT 'Events of a step by the value of any metadata key. Parameters: app, from, to, zone, step (feature id, event:<name>, or empty for all), path (key path with dots).'
AS
SELECT toLowCardinality({app:String}) AS app_id, value, count() AS events, sum(e.quantity) AS quantity, uniqExact(actor_kind, actor_id) AS people, uniqExactIf(account_id, account_id != '') AS accounts
FROM
(
    SELECT arrayFold((had, key) -> JSONExtractRaw(had, key), splitByChar('.', {path:String}), toJSONString(properties)) AS raw, if(startsWith(raw, '"'), JSONExtractString(raw), raw) AS value, actor_kind, actor_id, account_id, quantity
    FROM ({{template "counted_events" ((.Insight.With "columns" "event, event_time, properties, quantity, source_offset").With "where" "1")}})
    WHERE {step:String} = '' OR feature_id = {step:String} OR concat('event:', event) = {step:String}
) AS e
GROUP BY value
ORDER BY events DESC, value
