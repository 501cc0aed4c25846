{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `ancestors` Array(String) COMMENT 'The account itself first, then its parent, and so on; at most 64',
    `valid_from` DateTime64(6, 'UTC') COMMENT 'From when on; 1900-01-01: always',
    `valid_to` DateTime64(6, 'UTC') COMMENT 'Until when; 2299-12-31: it counts today'
)
{{.Definer}}
COMMENT 'The ancestors of each account that has a parent or is one, over time'
AS
WITH RECURSIVE
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS always,
    toDateTime64('2299-12-31 23:59:59', 6, 'UTC') AS never,
    (
        SELECT groupArray((app_id, account_id, spans))
        FROM
        (
            SELECT app_id, account_id, arraySort(groupArrayIf((since, parent_account_id), parent_account_id != '')) AS edges,
                arrayPushFront(arrayMap(e -> e.2, edges), '') AS parents, arrayPushFront(arrayMap(e -> e.1, edges), always) AS starts,
                arrayFilter(s -> s.2 < s.3, arrayZip(parents, starts, arrayPushBack(arrayPopFront(starts), never))) AS spans
            FROM
            (
                SELECT app_id, account_id, parent_account_id, since FROM {{.View "account_parents_in_force"}}
                UNION ALL
                SELECT DISTINCT app_id, arrayJoin([account_id, parent_account_id]), '', always FROM {{.View "account_parents"}}
            )
            GROUP BY app_id, account_id
        )
    ) AS all_spans,
    cover AS
    (
        SELECT s.1 AS app_id, s.2 AS account_id, tupleElement(arrayJoin(s.3) AS span, 1) AS parent_account_id, span.2 AS valid_from, span.3 AS valid_to
        FROM (SELECT arrayJoin(all_spans) AS s)
    ),
    heads AS (SELECT * FROM cover WHERE (app_id, account_id) IN (SELECT app_id, parent_account_id FROM cover)),
    walk AS
    (
        SELECT app_id, account_id, [account_id] AS ancestors, parent_account_id AS next, valid_from, valid_to FROM heads
        UNION ALL
        SELECT w.app_id, w.account_id, arrayPushBack(w.ancestors, w.next), c.parent_account_id, greatest(w.valid_from, c.valid_from), least(w.valid_to, c.valid_to)
        FROM walk AS w
        INNER JOIN heads AS c ON c.app_id = w.app_id AND c.account_id = w.next
        WHERE w.next != '' AND NOT has(w.ancestors, w.next) AND w.valid_from < c.valid_to AND c.valid_from < w.valid_to AND length(w.ancestors) < 64
    )
SELECT c.app_id AS app_id, c.account_id AS account_id, arrayDistinct(arrayPushFront(p.ancestors, c.account_id)) AS ancestors,
    if(p.account_id = '', c.valid_from, greatest(c.valid_from, p.valid_from)) AS valid_from, if(p.account_id = '', c.valid_to, least(c.valid_to, p.valid_to)) AS valid_to
FROM cover AS c
LEFT JOIN (SELECT * FROM walk WHERE next = '' OR has(ancestors, next) OR length(ancestors) = 64) AS p ON p.app_id = c.app_id AND p.account_id = c.parent_account_id
WHERE p.account_id = '' OR (c.valid_from < p.valid_to AND p.valid_from < c.valid_to)
