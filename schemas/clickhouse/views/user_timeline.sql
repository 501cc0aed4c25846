{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event_time` DateTime64(6, 'UTC') COMMENT 'When it counts',
    `kind` LowCardinality(String) COMMENT 'track, page, screen, api_call, identify, group, alias or metric',
    `event` LowCardinality(String) COMMENT 'Event name',
    `feature_id` String COMMENT 'Feature that it counts for today; empty: unmapped, or no usage',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `role` String COMMENT 'Role in the account',
    `properties` String COMMENT 'JSON text of the properties, of identify and group calls of the traits',
    `message_id` String COMMENT 'Message id of the event'
)
{{.Definer}}
COMMENT 'Everything that one person did, as of today: also what was done as a visitor before. Parameters: app, from, to, zone, user (user id or anonymous id).'
AS
SELECT toLowCardinality({app:String}) AS app_id, event_time, kind, event, feature_id, account_id, role, text AS properties, message_id
FROM
(
    SELECT event_time, toString(kind) AS kind, toString(event) AS event, feature_id, account_id, role, toJSONString(properties) AS text, message_id, source_partition, source_offset
    FROM ({{template "events_now_query" ((.Insight.With "columns" "event_time, kind, event, properties, message_id, source_partition, source_offset").With "where" "1")}})
    WHERE actor_id = {user:String} AND actor_kind IN ('user', 'anonymous')
    UNION ALL
    SELECT event_time, toString(kind), toString(event), '', account_id, toString(role), toJSONString(traits), message_id, source_partition, source_offset
    FROM {{.Table "events"}}
    WHERE app_id = {app:String} AND kind NOT IN ('track', 'page', 'screen', 'api_call') AND {user:String} IN (actor_id, user_id, anonymous_id, previous_id)
        AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
)
ORDER BY event_time, source_partition, source_offset
