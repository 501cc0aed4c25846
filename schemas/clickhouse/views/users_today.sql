{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `account_id` String COMMENT 'Account of the user today',
    `role` String COMMENT 'Role in that account',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated this account and role'
)
{{.Definer}}
COMMENT 'The account and role of each user today: the membership stated last'
AS
SELECT app_id, user_id, tupleElement(last, 1) AS account_id, tupleElement(last, 2) AS role, max(since) AS since
FROM
(
    SELECT app_id, user_id, argMax((account_id, role), (since, account_id, role)) OVER (PARTITION BY app_id, user_id) AS last, since
    FROM {{.View "memberships"}}
)
GROUP BY app_id, user_id, last
