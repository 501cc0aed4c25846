{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `user_id` String COMMENT 'User that the events named, or that their anonymous id is linked to, before aliases',
    `anonymous_id` String COMMENT 'Anonymous id of events that named no user',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `event` LowCardinality(String) COMMENT 'Event name',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of event_time',
    `source_partition` Int32 COMMENT 'Partition of the log that the events came from: an account or a feature has rows of several',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
{{.Definer}}
COMMENT 'Usage by account, actor, feature, event name and hour: one row for each, without those whose events were all moved elsewhere. For sums alone usage_hourly_sums costs less'
AS
SELECT app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM {{.Table "usage_hourly"}} AS r
GROUP BY app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition
HAVING events != 0 OR quantity != 0
