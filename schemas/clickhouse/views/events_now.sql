{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` LowCardinality(String) COMMENT 'Event name',
    `kind` LowCardinality(String) COMMENT 'track, page, screen or api_call',
    `message_id` String COMMENT 'Unique within the app',
    `event_time` DateTime64(6, 'UTC') COMMENT 'The instant it counts at',
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received it',
    `quantity` Int64 COMMENT 'How many actions it stands for',
    `properties` JSON(max_dynamic_paths=256) COMMENT 'properties.key reads one',
    `context` String COMMENT 'JSON text as sent',
    `conflicts` String COMMENT 'JSON text of values whose type does not fit the key',
    `session_id` String COMMENT 'Session id of the client',
    `protocol` LowCardinality(String) COMMENT 'Protocol it came by',
    `library` LowCardinality(String) COMMENT 'name/version of the SDK',
    `user_agent` String COMMENT 'User agent of the request',
    `country` LowCardinality(String) COMMENT 'Country of the client, two letters of ISO 3166-1; empty: not known',
    `browser` LowCardinality(String) COMMENT 'Browser; empty: none or not known',
    `os` LowCardinality(String) COMMENT 'Operating system of the client; empty: not known',
    `device_class` LowCardinality(String) COMMENT 'desktop, mobile, tablet, tv, console, wearable or bot; empty: not known',
    `referrer` LowCardinality(String) COMMENT 'Host of the page that led to this one; empty: none, or the same host',
    `utm_source` LowCardinality(String) COMMENT 'Source of the campaign; empty: none',
    `utm_medium` LowCardinality(String) COMMENT 'Medium of the campaign; empty: none',
    `utm_campaign` LowCardinality(String) COMMENT 'Name of the campaign; empty: none',
    `user_id` String COMMENT 'User as the call named it',
    `anonymous_id` String COMMENT 'Anonymous id as the call named it',
    `source_partition` Int32 COMMENT 'Partition of the log',
    `source_offset` Int64 COMMENT 'Offset in it',
    `actor_id` String COMMENT 'User id or anonymous id',
    `actor_kind` String COMMENT 'user, anonymous, account or erased',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `account_source` String COMMENT 'How the account was found: event, membership or none',
    `role` String COMMENT 'Role of the actor in the account',
    `feature_id` String COMMENT 'Feature; empty: unmapped',
    `module_id` String COMMENT 'Module of the feature',
    `product_id` String COMMENT 'Product of the module'
)
{{.Definer}}
COMMENT 'Usage events with the actor, account, role and feature that each counts for today: after identity links, moves of accounts, catalog changes and erasures. Its sums equal user_feature_daily. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, *
FROM ({{template "events_now_query" ((.Insight.With "columns" "event, kind, message_id, event_time, received_at, quantity, properties, context, conflicts, session_id, protocol, library, user_agent, country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign, user_id, anonymous_id, source_partition, source_offset").With "where" "1")}})
