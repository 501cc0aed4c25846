{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` LowCardinality(String) COMMENT 'Event name',
    `kind` LowCardinality(String) COMMENT 'track, page, screen or api_call',
    `event_time` DateTime64(6, 'UTC') COMMENT 'Instant that the event counts at',
    `properties` JSON(max_dynamic_paths = 256) COMMENT 'Normalized properties',
    `context` String COMMENT 'JSON text as sent',
    `protocol` LowCardinality(String) COMMENT 'Protocol of the call: segment, posthog, moesif, ...',
    `library` LowCardinality(String) COMMENT 'name/version of the sending SDK',
    `message_id` String COMMENT 'Unique within the app'
)
{{.Definer}}
COMMENT 'The newest five events of each name in unmapped_events, to see which feature they belong to'
AS
SELECT app_id, event, kind, event_time, properties, context, protocol, library, message_id
FROM {{.Table "events"}}
WHERE feature_id = '' AND kind IN ('track', 'page', 'screen', 'api_call')
    AND (app_id, toString(event)) IN (SELECT app_id, event FROM {{.View "unmapped_events"}})
ORDER BY event_time DESC
LIMIT 5 BY app_id, event
