-- Who is who, which account belongs to which, and what was last said of both,
-- as the calls in events said it. One view fills one table with all of that: each
-- view that hangs on events costs every block, also those in which nobody says
-- anything. Repeats and late calls change nothing: rows are keyed by what they
-- say, and first and last are a minimum and a maximum.

{{.CreateTable "identity_facts"}}
(
    `app_id` LowCardinality(String),
    `fact` LowCardinality(String) COMMENT 'anonymous, alias, membership, parent, user or account',
    `subject` String COMMENT 'Anonymous id; user, before the alias; user; account; user; account',
    `object` String COMMENT 'User; user; account; account; trait; trait (empty: the call itself)',
    `at` DateTime64(6, 'UTC') COMMENT 'Event time, of facts that have a history: memberships and parents',
    `first` SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'Earliest event time of the calls that said so: min it',
    `last` SimpleAggregateFunction(max, Tuple(at DateTime64(6, 'UTC'), value String)) COMMENT 'Latest one, and the role or the JSON text of the trait that it said: max it'
)
ENGINE = {{.AggregatingMergeTree}}
ORDER BY (app_id, fact, subject, object, at)
SETTINGS {{.Window}}
COMMENT 'What calls said of identity, for the views that are named for it';

{{.CreateDistributed "identity_facts"}};

{{.CreateTable "identity_unlinks"}}
(
    `app_id` LowCardinality(String),
    `id_kind` LowCardinality(String) COMMENT 'What id is: anonymous or user',
    `id` String,
    `user_id` String COMMENT 'User that it does not belong to',
    `until` SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'What was said up to it does not count: max it'
)
ENGINE = {{.AggregatingMergeTree}}
ORDER BY (app_id, id_kind, id, user_id)
SETTINGS {{.Window}}
COMMENT 'Links that operators undid';

{{.CreateDistributed "identity_unlinks"}};

{{.CreateView "identity_facts_from_events" "identity_facts"}} AS
SELECT
    e.app_id AS app_id, f.1 AS fact, f.2 AS subject, f.3 AS object,
    if(fact IN ('membership', 'parent'), e.event_time, toDateTime64(0, 6, 'UTC')) AS at, e.event_time AS first, (e.event_time, f.4) AS last
FROM {{.Local "events"}} AS e
ARRAY JOIN arrayConcat(
    if(e.user_id != '' AND e.anonymous_id != '', [('anonymous', e.anonymous_id, e.user_id, '')], []),
    if(e.kind = 'alias' AND e.user_id != '' AND e.previous_id NOT IN ('', e.user_id),
        [('anonymous', e.previous_id, e.user_id, ''), ('alias', e.previous_id, e.user_id, '')], []),
    if(e.kind IN ('group', 'identify') AND e.user_id != '' AND e.account_id != '' AND e.account_source = 'event',
        [('membership', e.user_id, e.account_id, toString(e.role))], []),
    if(e.kind = 'group' AND e.account_id != '' AND e.parent_account_id NOT IN ('', e.account_id), [('parent', e.account_id, e.parent_account_id, '')], []),
    if(e.kind = 'identify' AND e.user_id != '',
        arrayMap(t -> ('user', e.user_id, t.1, t.2), arrayPushFront(JSONExtractKeysAndValuesRaw(toJSONString(e.traits)), ('', ''))), []),
    if(e.kind = 'group' AND e.account_id != '',
        arrayMap(t -> ('account', e.account_id, t.1, t.2), arrayPushFront(JSONExtractKeysAndValuesRaw(toJSONString(e.traits)), ('', ''))), [])) AS f
WHERE e.kind IN ('identify', 'group', 'alias') OR (e.user_id != '' AND e.anonymous_id != '');

{{.CreateView "identity_unlinks_from_plans" "identity_unlinks"}} AS
SELECT
    app_id, JSONExtractString(reason, 'id_kind') AS id_kind, JSONExtractString(reason, 'id') AS id, JSONExtractString(reason, 'user_id') AS user_id,
    fromUnixTimestamp64Micro(least(JSONExtractInt(reason, 'until'), 10413791999000000), 'UTC') AS until
FROM {{.Local "correction_plans"}}
WHERE chunk = 0 AND JSONExtractString(reason, 'kind') = 'unlink';

-- The views below are small queries, and work over shards.

{{.CreatePlainView "identity_links"}} AS
SELECT app_id, if(fact = 'alias', 'user', 'anonymous') AS id_kind, subject AS id, object AS user_id, min(f.first) AS since, max(f.last).1 AS last_said
FROM {{.Table "identity_facts"}} AS f
WHERE fact IN ('anonymous', 'alias')
GROUP BY app_id, fact, subject, object;

{{.CreatePlainView "memberships"}} AS
SELECT app_id, subject AS user_id, object AS account_id, max(f.last).2 AS role, at AS since
FROM {{.Table "identity_facts"}} AS f
WHERE fact = 'membership'
GROUP BY app_id, subject, object, at;

{{.CreatePlainView "account_parents"}} AS
SELECT DISTINCT app_id, subject AS account_id, object AS parent_account_id, at AS since
FROM {{.Table "identity_facts"}}
WHERE fact = 'parent';

{{.CreatePlainView "user_traits"}} AS
SELECT app_id, subject AS user_id, object AS trait, max(f.last).2 AS value, max(f.last).1 AS said_at
FROM {{.Table "identity_facts"}} AS f
WHERE fact = 'user'
GROUP BY app_id, subject, object;

{{.CreatePlainView "account_traits"}} AS
SELECT app_id, subject AS account_id, object AS trait, max(f.last).2 AS value, max(f.last).1 AS said_at
FROM {{.Table "identity_facts"}} AS f
WHERE fact = 'account'
GROUP BY app_id, subject, object;

{{.CreatePlainView "users"}} AS
SELECT
    app_id, user_id,
    mapFromArrays(groupArrayIf(trait, trait != ''), groupArrayIf(if(startsWith(value, '"'), JSONExtractString(value), value), trait != '')) AS traits,
    max(said_at) AS updated_at
FROM (SELECT * FROM {{.Table "user_traits"}} ORDER BY trait)
GROUP BY app_id, user_id;

{{.CreatePlainView "accounts"}} AS
SELECT
    app_id, account_id,
    mapFromArrays(groupArrayIf(trait, trait != ''), groupArrayIf(if(startsWith(value, '"'), JSONExtractString(value), value), trait != '')) AS traits,
    max(said_at) AS updated_at
FROM (SELECT * FROM {{.Table "account_traits"}} ORDER BY trait)
GROUP BY app_id, account_id;

-- A membership counts until the next one that the user has in the account.
{{.CreatePlainView "memberships_history"}} AS
SELECT
    app_id, user_id, account_id, role, since AS valid_from,
    leadInFrame(since, 1, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) OVER (
        PARTITION BY app_id, user_id, account_id ORDER BY since, role ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS valid_to
FROM
(
    SELECT *, lagInFrame(role, 1, '') OVER w AS role_before, row_number() OVER w AS n
    FROM {{.Table "memberships"}}
    WINDOW w AS (PARTITION BY app_id, user_id, account_id ORDER BY since, role ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE n = 1 OR role != role_before;

-- The account and role that a user has now: the last that was said.
{{.CreatePlainView "users_today"}} AS
SELECT app_id, user_id, tupleElement(last, 1) AS account_id, tupleElement(last, 2) AS role, max(since) AS since
FROM
(
    SELECT app_id, user_id, argMax((account_id, role), (since, account_id, role)) OVER (PARTITION BY app_id, user_id) AS last, since
    FROM {{.Table "memberships"}}
)
GROUP BY app_id, user_id, last;

-- Links that count: without those that were undone. in_force is the user that an
-- anonymous id counts for now, or that a user is aliased to: the one said last.
{{.CreatePlainView "identities"}} AS
SELECT
    app_id, id_kind, id, user_id, since, last_said,
    row_number() OVER (PARTITION BY app_id, id_kind, id ORDER BY last_said DESC, user_id DESC) = 1 AS in_force
FROM {{.Table "identity_links"}} AS said
LEFT JOIN
(
    SELECT app_id, id_kind, id, user_id, max(u.until) AS until
    FROM {{.Table "identity_unlinks"}} AS u
    GROUP BY app_id, id_kind, id, user_id
) AS undone USING (app_id, id_kind, id, user_id)
WHERE last_said > until;

-- Whom a user counts for after all its aliases. In a cycle the alias that was
-- said first the latest is not in force, as in the enricher.
{{.CreatePlainView "user_roots"}} AS
WITH RECURSIVE
    aliases AS (SELECT app_id, id, user_id, since FROM {{.Table "identities"}} WHERE id_kind = 'user' AND in_force),
    walk AS
    (
        SELECT app_id, id AS user_id, [id] AS path, [since] AS said, a.user_id AS next
        FROM aliases AS a
        UNION ALL
        SELECT w.app_id, w.user_id, arrayPushBack(w.path, w.next), arrayPushBack(w.said, a.since), a.user_id
        FROM walk AS w
        LEFT JOIN aliases AS a ON a.app_id = w.app_id AND a.id = w.next
        WHERE w.next != '' AND NOT has(w.path, w.next) AND length(w.path) < 100
    )
SELECT
    app_id, user_id,
    if(next = '', path[-1],
        tupleElement(arraySort(arraySlice(arrayZip(said, path), indexOf(path, next)))[-1], 2)) AS root_id
FROM walk
WHERE next = '' OR has(path, next);

-- The ancestors of each account that has a parent or is one, itself first, and
-- when they were so. An assignment that, at its time, leads from the new parent
-- back to the account is refused: the parent before it stays.
{{.CreatePlainView "account_paths_history"}} AS
WITH RECURSIVE
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS always,
    toDateTime64('2299-12-31 23:59:59', 6, 'UTC') AS never,
    said AS
    (
        SELECT app_id, account_id, parent_account_id, since,
            leadInFrame(since, 1, never) OVER (
                PARTITION BY app_id, account_id ORDER BY since, parent_account_id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS until
        FROM {{.Table "account_parents"}}
    ),
    back AS
    (
        SELECT app_id, account_id, since, parent_account_id AS above, 1 AS depth FROM said
        UNION ALL
        SELECT b.app_id, b.account_id, b.since, s.parent_account_id, b.depth + 1
        FROM back AS b
        INNER JOIN said AS s ON s.app_id = b.app_id AND s.account_id = b.above
        WHERE s.since <= b.since AND b.since < s.until AND b.above != b.account_id AND b.depth < 64
    ),
    kept AS
    (
        SELECT app_id, account_id, parent_account_id, since
        FROM said
        WHERE (app_id, account_id, since) NOT IN (SELECT app_id, account_id, since FROM back WHERE above = account_id)
    ),
    cover AS
    (
        SELECT app_id, account_id, tupleElement(spans, 1) AS parent_account_id, tupleElement(spans, 2) AS valid_from, tupleElement(spans, 3) AS valid_to
        FROM
        (
            SELECT app_id, account_id, arraySort(groupArray((since, parent_account_id))) AS edges,
                arrayPushFront(arrayMap(e -> e.2, edges), '') AS parents, arrayPushFront(arrayMap(e -> e.1, edges), always) AS starts,
                arrayJoin(arrayZip(parents, starts, arrayPushBack(arrayPopFront(starts), never))) AS spans
            FROM kept
            GROUP BY app_id, account_id
        )
    ),
    walk AS
    (
        SELECT DISTINCT app_id, account AS account_id, [account] AS ancestors, account AS top, always AS valid_from, never AS valid_to
        FROM (SELECT app_id, arrayJoin([account_id, parent_account_id]) AS account FROM {{.Table "account_parents"}})
        UNION ALL
        SELECT w.app_id, w.account_id, if(c.parent_account_id = '', w.ancestors, arrayPushBack(w.ancestors, c.parent_account_id)),
            if(has(w.ancestors, c.parent_account_id), '', c.parent_account_id),
            if(c.account_id = '', w.valid_from, greatest(w.valid_from, c.valid_from)), if(c.account_id = '', w.valid_to, least(w.valid_to, c.valid_to))
        FROM walk AS w
        LEFT JOIN cover AS c ON c.app_id = w.app_id AND c.account_id = w.top
        WHERE w.top != '' AND (c.account_id = '' OR (w.valid_from < c.valid_to AND c.valid_from < w.valid_to)) AND length(w.ancestors) < 64
    )
SELECT app_id, account_id, arrayDistinct(ancestors) AS ancestors, valid_from, valid_to
FROM walk
WHERE top = '';

{{.CreatePlainView "account_paths"}} AS
SELECT app_id, account_id, ancestors
FROM {{.Table "account_paths_history"}}
WHERE valid_to = toDateTime64('2299-12-31 23:59:59', 6, 'UTC');

-- Each account with all that is below it, itself included.
{{.CreatePlainView "account_subtree"}} AS
SELECT k.app_id AS app_id, ancestor AS account_id, k.account_id AS member_id, toUInt32(position - 1) AS depth
FROM
(
    SELECT app_id, account_id FROM {{.Table "account_traits"}}
    UNION DISTINCT
    SELECT app_id, account_id FROM {{.Table "memberships"}}
    UNION DISTINCT
    SELECT app_id, arrayJoin([account_id, parent_account_id]) FROM {{.Table "account_parents"}}
) AS k
LEFT JOIN {{.Table "account_paths"}} AS p ON p.app_id = k.app_id AND p.account_id = k.account_id
ARRAY JOIN if(empty(p.ancestors), [k.account_id], p.ancestors) AS ancestor, arrayEnumerate(if(empty(p.ancestors), [k.account_id], p.ancestors)) AS position;
{{range $rollup := .AccountRollups}}

-- Usage of each account counted for itself and for all above it: as they were
-- above it at the end of the day, and as they are now.
{{$.CreatePlainView (print $rollup "_as_then")}} AS
SELECT r.*, under AS under_account_id, toUInt32(position - 1) AS depth
FROM {{$.Table $rollup}} AS r
LEFT ASOF JOIN {{$.Table "account_paths_history"}} AS p
    ON p.app_id = r.app_id AND p.account_id = r.account_id AND toDateTime64(r.day + 1, 6, 'UTC') > p.valid_from
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

{{$.CreatePlainView (print $rollup "_as_today")}} AS
SELECT r.*, under AS under_account_id, toUInt32(position - 1) AS depth
FROM {{$.Table $rollup}} AS r
LEFT JOIN {{$.Table "account_paths"}} AS p ON p.app_id = r.app_id AND p.account_id = r.account_id
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;
{{end}}

-- Usage of users under the account and role that they have today; as it was
-- then is user_feature_daily itself.
{{.CreatePlainView "user_feature_daily_as_today"}} AS
SELECT
    u.app_id AS app_id, if(t.user_id != '', t.account_id, u.account_id) AS account_id, u.actor_id AS actor_id, u.actor_kind AS actor_kind,
    if(t.user_id != '', t.role, u.role) AS role, u.feature_id AS feature_id, u.module_id AS module_id, u.product_id AS product_id,
    u.day AS day, u.events AS events, u.quantity AS quantity, u.account_id AS account_id_then, u.role AS role_then
FROM {{.Table "user_feature_daily"}} AS u
LEFT JOIN {{.Table "users_today"}} AS t ON t.app_id = u.app_id AND t.user_id = u.actor_id AND u.actor_kind = 'user';

-- Dictionaries hold what dashboards look up by id, as of the last minutes.

{{.CreateDictionary "users_dict"}}
(
    `app_id` String,
    `user_id` String,
    `traits` String,
    `account_id` String,
    `role` String,
    `updated_at` DateTime64(6, 'UTC')
)
PRIMARY KEY app_id, user_id
SOURCE(CLICKHOUSE(QUERY 'SELECT u.app_id, u.user_id, toJSONString(u.traits), t.account_id, t.role, u.updated_at FROM {{.Table "users"}} AS u LEFT JOIN {{.Table "users_today"}} AS t USING (app_id, user_id)'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 60 MAX 120);

{{.CreateDictionary "accounts_dict"}}
(
    `app_id` String,
    `account_id` String,
    `traits` String,
    `parent_account_id` String,
    `updated_at` DateTime64(6, 'UTC')
)
PRIMARY KEY app_id, account_id
SOURCE(CLICKHOUSE(QUERY 'SELECT a.app_id, a.account_id, toJSONString(a.traits), p.ancestors[2], a.updated_at FROM {{.Table "accounts"}} AS a LEFT JOIN {{.Table "account_paths"}} AS p USING (app_id, account_id)'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 60 MAX 120);

{{.CreateDictionary "user_roots_dict"}}
(
    `app_id` String,
    `user_id` String,
    `root_id` String
)
PRIMARY KEY app_id, user_id
SOURCE(CLICKHOUSE(QUERY 'SELECT app_id, user_id, root_id FROM {{.Table "user_roots"}}'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 60 MAX 120);
