{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id_kind` String COMMENT 'What id is: anonymous or user (an alias)',
    `id` String COMMENT 'The anonymous id, or the user id before the alias',
    `user_id` String COMMENT 'User that it belongs to',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the first call that stated it',
    `last_said` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it',
    `in_force` UInt8 COMMENT '1: of the links of this id, the one that counts now, since it was stated last'
)
{{.Definer}}
COMMENT 'Identity links that count: all that calls stated, without those that operators undid'
AS
SELECT
    app_id, id_kind, id, user_id, since, last_said,
    row_number() OVER (PARTITION BY app_id, id_kind, id ORDER BY last_said DESC, user_id DESC) = 1 AS in_force
FROM {{.View "identity_links"}} AS said
LEFT JOIN
(
    SELECT app_id, id_kind, id, user_id, max(u.until) AS until
    FROM {{.Table "identity_unlinks"}} AS u
    GROUP BY app_id, id_kind, id, user_id
) AS undone USING (app_id, id_kind, id, user_id)
WHERE last_said > until
