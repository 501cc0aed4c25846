{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
{{.Definer}}
COMMENT 'Usage of a feature by an actor on a day: one row for each, without those whose events were all moved elsewhere. For sums alone user_feature_daily_sums costs less'
AS
SELECT app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM {{.Table "user_feature_daily"}} AS r
GROUP BY app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, day
HAVING events != 0 OR quantity != 0
