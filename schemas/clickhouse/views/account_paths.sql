{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `ancestors` Array(String) COMMENT 'The account itself first, then its parent, and so on; at most 64'
)
{{.Definer}}
COMMENT 'The ancestors of each account that has a parent or is one, today'
AS
WITH
    (
        SELECT (groupArray(concat(app_id, '\0', account_id)), groupArray(parent_account_id))
        FROM
        (
            SELECT app_id, account_id, argMax(p.parent_account_id, (p.since, p.parent_account_id)) AS parent_account_id
            FROM {{.View "account_parents_in_force"}} AS p
            GROUP BY app_id, account_id
        )
    ) AS today,
    account -> transform(account, today.1, today.2, '') AS parent_of
SELECT a.app_id AS app_id, a.account_id AS account_id, arrayDistinct(arrayFilter(id -> id != '', arrayPushFront(p.path, a.account_id))) AS ancestors
FROM
(
    SELECT DISTINCT app_id, arrayJoin([account_id, parent_account_id]) AS account_id, parent_of(concat(app_id, '\0', account_id)) AS parent
    FROM {{.View "account_parents"}}
) AS a
LEFT JOIN
(
    SELECT app_id, account_id,
        arrayFold((path, step) -> if(path[-1] = '', path, arrayPushBack(path, parent_of(concat(app_id, '\0', path[-1])))), range(63), [account_id]) AS path
    FROM (SELECT DISTINCT app_id, parent_account_id AS account_id FROM {{.View "account_parents"}})
) AS p ON p.app_id = a.app_id AND p.account_id = a.parent
