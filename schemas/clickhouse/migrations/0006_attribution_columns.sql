-- How a row of the base rollup came to its actor and its account, so that what
-- a wrong link moved can be told from what was counted for the same actor all
-- along. The views change in place: dropped and made again they would miss what
-- comes in between.

ALTER TABLE {{.OnAll "events"}}
    ADD COLUMN IF NOT EXISTS `linked_user_id` String COMMENT 'User that anonymous_id was linked to when the call named no user; actor_id is that user, or the one it is aliased to' AFTER `previous_id`,
    ADD COLUMN IF NOT EXISTS `parent_account_id` String COMMENT 'group only: the parent account that the call names' AFTER `account_source`;

{{with .Distributed "events"}}ALTER TABLE {{.}}
    ADD COLUMN IF NOT EXISTS `linked_user_id` String COMMENT 'User that anonymous_id was linked to when the call named no user; actor_id is that user, or the one it is aliased to' AFTER `previous_id`,
    ADD COLUMN IF NOT EXISTS `parent_account_id` String COMMENT 'group only: the parent account that the call names' AFTER `account_source`{{end}};

ALTER TABLE {{.OnAll "corrections"}}
    ADD COLUMN IF NOT EXISTS `account_source` LowCardinality(String) AFTER `account_id`,
    ADD COLUMN IF NOT EXISTS `user_id` String AFTER `actor_kind`,
    ADD COLUMN IF NOT EXISTS `anonymous_id` String AFTER `user_id`;

{{with .Distributed "corrections"}}ALTER TABLE {{.}}
    ADD COLUMN IF NOT EXISTS `account_source` LowCardinality(String) AFTER `account_id`,
    ADD COLUMN IF NOT EXISTS `user_id` String AFTER `actor_kind`,
    ADD COLUMN IF NOT EXISTS `anonymous_id` String AFTER `user_id`{{end}};

ALTER TABLE {{.OnAll "usage_hourly"}}
    ADD COLUMN IF NOT EXISTS `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none' AFTER `account_id`,
    ADD COLUMN IF NOT EXISTS `user_id` String COMMENT 'User that the event named, or that its anonymous id is linked to, before aliases' AFTER `actor_kind`,
    ADD COLUMN IF NOT EXISTS `anonymous_id` String COMMENT 'Anonymous id of events that named no user' AFTER `user_id`,
    MODIFY ORDER BY (app_id, actor_id, actor_kind, account_id, feature_id, hour, module_id, product_id, role, event, source_partition, account_source, user_id, anonymous_id);

{{with .Distributed "usage_hourly"}}ALTER TABLE {{.}}
    ADD COLUMN IF NOT EXISTS `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none' AFTER `account_id`,
    ADD COLUMN IF NOT EXISTS `user_id` String COMMENT 'User that the event named, or that its anonymous id is linked to, before aliases' AFTER `actor_kind`,
    ADD COLUMN IF NOT EXISTS `anonymous_id` String COMMENT 'Anonymous id of events that named no user' AFTER `user_id`{{end}};

ALTER TABLE {{.View "usage_hourly_from_events"}} MODIFY QUERY
SELECT
    e.app_id AS app_id, e.account_id AS account_id, e.account_source AS account_source, e.actor_id AS actor_id, e.actor_kind AS actor_kind,
    if(e.user_id != '', e.user_id, e.linked_user_id) AS user_id, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id,
    e.feature_id AS feature_id, e.module_id AS module_id, e.product_id AS product_id, e.role AS role, e.event AS event,
    toStartOfHour(e.event_time) AS hour, e.source_partition AS source_partition, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM {{.Local "events"}} AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call')
GROUP BY app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition;

ALTER TABLE {{.View "usage_hourly_from_corrections"}} MODIFY QUERY
SELECT
    app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event,
    hour, source_partition, events, quantity
FROM {{.Local "corrections"}}
WHERE chunk != 0;
