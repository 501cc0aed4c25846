{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Account that the user belongs to today: the one stated last; of other actors, and of users without a membership, the account of the events',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` String COMMENT 'Role of the user in that account today',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `account_id_then` String COMMENT 'Account that the events counted for',
    `role_then` LowCardinality(String) COMMENT 'Role of the actor in that account at the time'
)
{{.Definer}}
COMMENT 'Usage of a feature by an actor on a day, under the account and role that the user has today. As it was at the time: user_feature_daily'
AS
SELECT
    u.app_id AS app_id, if(t.user_id != '', t.account_id, u.account_id) AS account_id, u.actor_id AS actor_id, u.actor_kind AS actor_kind,
    if(t.user_id != '', t.role, u.role) AS role, u.feature_id AS feature_id, u.module_id AS module_id, u.product_id AS product_id,
    u.day AS day, u.events AS events, u.quantity AS quantity, u.account_id AS account_id_then, u.role AS role_then
FROM {{.View "user_feature_daily"}} AS u
LEFT JOIN {{.View "users_today"}} AS t ON t.app_id = u.app_id AND t.user_id = u.actor_id AND u.actor_kind = 'user'
