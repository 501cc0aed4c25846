-- Which accounts are above which, in time that grows with the number of accounts
-- alone. Recursion evaluates what it joins with anew at each of its steps, so that
-- whatever is used more than once is a scalar, an array that is read once; and
-- walks begin at accounts that have others below them, which are few. At most 64
-- ancestors are told.

-- Parents that count. An assignment that, at its time, leads from the new parent
-- back to the account is refused: the parent before it stays. That can only be
-- among accounts that have accounts above and below them.
{{.CreatePlainView "account_parents_in_force"}} AS
WITH RECURSIVE
    (
        SELECT groupArray((app_id, account_id, parent_account_id, since, until))
        FROM
        (
            SELECT *, leadInFrame(since, 1, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) OVER (
                PARTITION BY app_id, account_id ORDER BY since, parent_account_id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS until
            FROM {{.Table "account_parents"}}
        )
        WHERE (app_id, account_id) IN (SELECT app_id, parent_account_id FROM {{.Table "account_parents"}})
            AND (app_id, parent_account_id) IN (SELECT app_id, account_id FROM {{.Table "account_parents"}})
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
FROM {{.Table "account_parents"}}
WHERE (app_id, account_id, since) NOT IN (SELECT app_id, account_id, since FROM back WHERE above = account_id);

-- The ancestors that each account that has a parent or is one has today, itself
-- first.
CREATE OR REPLACE VIEW {{.Table "account_paths"}}{{.OnCluster}} AS
WITH
    (
        SELECT (groupArray(concat(app_id, '\0', account_id)), groupArray(parent_account_id))
        FROM
        (
            SELECT app_id, account_id, argMax(p.parent_account_id, (p.since, p.parent_account_id)) AS parent_account_id
            FROM {{.Table "account_parents_in_force"}} AS p
            GROUP BY app_id, account_id
        )
    ) AS today,
    account -> transform(account, today.1, today.2, '') AS parent_of
SELECT a.app_id AS app_id, a.account_id AS account_id, arrayDistinct(arrayFilter(id -> id != '', arrayPushFront(p.path, a.account_id))) AS ancestors
FROM
(
    SELECT DISTINCT app_id, arrayJoin([account_id, parent_account_id]) AS account_id, parent_of(concat(app_id, '\0', account_id)) AS parent
    FROM {{.Table "account_parents"}}
) AS a
LEFT JOIN
(
    SELECT app_id, account_id,
        arrayFold((path, step) -> if(path[-1] = '', path, arrayPushBack(path, parent_of(concat(app_id, '\0', path[-1])))), range(63), [account_id]) AS path
    FROM (SELECT DISTINCT app_id, parent_account_id AS account_id FROM {{.Table "account_parents"}})
) AS p ON p.app_id = a.app_id AND p.account_id = a.parent;

-- The same with the times at which it was so.
CREATE OR REPLACE VIEW {{.Table "account_paths_history"}}{{.OnCluster}} AS
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
                SELECT app_id, account_id, parent_account_id, since FROM {{.Table "account_parents_in_force"}}
                UNION ALL
                SELECT DISTINCT app_id, arrayJoin([account_id, parent_account_id]), '', always FROM {{.Table "account_parents"}}
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
WHERE p.account_id = '' OR (c.valid_from < p.valid_to AND p.valid_from < c.valid_to);

-- Each account with all that is below it, itself included.
CREATE OR REPLACE VIEW {{.Table "account_subtree"}}{{.OnCluster}} AS
SELECT k.app_id AS app_id, ancestor AS account_id, k.account_id AS member_id, toUInt32(position - 1) AS depth
FROM
(
    SELECT DISTINCT app_id, arrayJoin(multiIf(fact = 'account', [subject], fact = 'membership', [object], [subject, object])) AS account_id
    FROM {{.Table "identity_facts"}}
    WHERE fact IN ('account', 'membership', 'parent')
) AS k
LEFT JOIN {{.Table "account_paths"}} AS p ON p.app_id = k.app_id AND p.account_id = k.account_id
ARRAY JOIN if(empty(p.ancestors), [k.account_id], p.ancestors) AS ancestor, arrayEnumerate(if(empty(p.ancestors), [k.account_id], p.ancestors)) AS position;

-- Which role a user has in each account, and whom an anonymous id counts for.

{{.CreateDictionary "memberships_dict"}}
(
    `app_id` String,
    `user_id` String,
    `account_id` String,
    `role` String,
    `valid_from` DateTime64(6, 'UTC')
)
PRIMARY KEY app_id, user_id, account_id
SOURCE(CLICKHOUSE(QUERY 'SELECT app_id, user_id, account_id, role, valid_from FROM {{.Table "memberships_history"}} WHERE valid_to = toDateTime64(\'2299-12-31 23:59:59\', 6, \'UTC\')'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 60 MAX 120);

{{.CreateDictionary "anonymous_users_dict"}}
(
    `app_id` String,
    `anonymous_id` String,
    `user_id` String
)
PRIMARY KEY app_id, anonymous_id
SOURCE(CLICKHOUSE(QUERY 'SELECT i.app_id, i.id, if(r.root_id = \'\', i.user_id, r.root_id) FROM {{.Table "identities"}} AS i LEFT JOIN {{.Table "user_roots"}} AS r ON r.app_id = i.app_id AND r.user_id = i.user_id WHERE i.id_kind = \'anonymous\' AND i.in_force'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 60 MAX 120);
