{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `role` String COMMENT 'Role of the user in the account; empty: none was stated',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the call: the membership counts from it on'
)
{{.Definer}}
COMMENT 'Memberships of users in accounts, as group and identify calls stated them: one row for each event time. Spans of time: memberships_history'
AS
SELECT app_id, subject AS user_id, object AS account_id, max(f.last).2 AS role, at AS since
FROM {{.Table "identity_facts"}} AS f
WHERE fact = 'membership'
GROUP BY app_id, subject, object, at
