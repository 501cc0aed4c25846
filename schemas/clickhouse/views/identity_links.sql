{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id_kind` String COMMENT 'What id is: anonymous or user (an alias)',
    `id` String COMMENT 'The anonymous id, or the user id before the alias',
    `user_id` String COMMENT 'User that it belongs to',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the first call that stated it',
    `last_said` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it'
)
{{.Definer}}
COMMENT 'Identity links as calls stated them: an anonymous id that belongs to a user, or a user id that is an alias of another. Links that count today: identities'
AS
SELECT app_id, if(fact = 'alias', 'user', 'anonymous') AS id_kind, subject AS id, object AS user_id, CAST(min(f.first) AS DateTime64(6, 'UTC')) AS since, max(f.last).1 AS last_said
FROM {{.Table "identity_facts"}} AS f
WHERE fact IN ('anonymous', 'alias')
GROUP BY app_id, fact, subject, object
