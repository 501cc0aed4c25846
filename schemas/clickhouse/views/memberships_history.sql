{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `role` String COMMENT 'Role of the user in the account; empty: none was stated',
    `valid_from` DateTime64(6, 'UTC') COMMENT 'From when on',
    `valid_to` DateTime64(6, 'UTC') COMMENT 'Until when; 2299-12-31: it counts today'
)
{{.Definer}}
COMMENT 'Roles of users in accounts over time: a role counts until the next one that the user has in the same account'
AS
SELECT
    app_id, user_id, account_id, role, since AS valid_from,
    leadInFrame(since, 1, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) OVER (
        PARTITION BY app_id, user_id, account_id ORDER BY since, role ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS valid_to
FROM
(
    SELECT *, lagInFrame(role, 1, '') OVER w AS role_before, row_number() OVER w AS n
    FROM {{.View "memberships"}}
    WINDOW w AS (PARTITION BY app_id, user_id, account_id ORDER BY since, role ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE n = 1 OR role != role_before
