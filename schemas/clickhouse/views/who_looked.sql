{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `looked_at` DateTime64(3, 'UTC') COMMENT 'When the page was opened; opened again within ten minutes it is not said again',
    `viewer` String COMMENT 'Who opened it: name from the sign-in, or holder of the token',
    `person_id` String COMMENT 'User or visitor whose page it was; empty for an account, and for a person who was erased since',
    `account_id` String COMMENT 'Account whose page, with its people, it was; empty for a person'
)
{{.Definer}}
COMMENT 'Who looked at which person, or at the people of which account, in the console, for 400 days'
AS
SELECT app_id, looked_at, any(l.viewer) AS viewer, min(l.person_id) AS person_id, any(l.account_id) AS account_id
FROM {{.Table "looks"}} AS l
GROUP BY app_id, looked_at, log_topic_id, log_offset
ORDER BY app_id, looked_at, log_offset
