-- Which accounts are above which, in time that grows with the number of accounts
-- alone. Recursion evaluates what it joins with anew at each of its steps: whatever
-- is used more than once is a scalar, an array that is read once; and walks begin at
-- accounts that have others below them, which are few. At most 64 ancestors are
-- listed.
-- 
-- An assignment that, at its time, leads from the new parent back to the account is
-- refused: the parent before it stays. That can only happen among accounts that have
-- accounts above and below them.
{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `parent_account_id` String COMMENT 'The account above it',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the call: the parent counts from it on'
)
{{.Definer}}
COMMENT 'Parents of accounts that count: without assignments that would make an account an ancestor of itself'
AS
WITH RECURSIVE
    (
        SELECT groupArray((app_id, account_id, parent_account_id, since, until))
        FROM
        (
            SELECT *, leadInFrame(since, 1, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) OVER (
                PARTITION BY app_id, account_id ORDER BY since, parent_account_id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS until
            FROM {{.View "account_parents"}}
        )
        WHERE (app_id, account_id) IN (SELECT app_id, parent_account_id FROM {{.View "account_parents"}})
            AND (app_id, parent_account_id) IN (SELECT app_id, account_id FROM {{.View "account_parents"}})
    ) AS amid_rows,
    amid AS (SELECT e.1 AS app_id, e.2 AS account_id, e.3 AS parent_account_id, e.4 AS since, e.5 AS until FROM (SELECT arrayJoin(amid_rows) AS e)),
    back AS
    (
        SELECT app_id, account_id, since, parent_account_id AS above, 1 AS depth FROM amid
        UNION ALL
        SELECT b.app_id, b.account_id, b.since, s.parent_account_id, b.depth + 1
        FROM back AS b
        INNER JOIN amid AS s ON s.app_id = b.app_id AND s.account_id = b.above
        WHERE s.since <= b.since AND b.since < s.until AND b.above != b.account_id AND b.depth < 64
    )
SELECT app_id, account_id, parent_account_id, since
FROM {{.View "account_parents"}}
WHERE (app_id, account_id, since) NOT IN (SELECT app_id, account_id, since FROM back WHERE above = account_id)
