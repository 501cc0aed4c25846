-- Identity links, memberships, parents of accounts and traits, as the calls in
-- events state them. One view fills one table with all of these: each view over
-- events costs every block, also a block without such calls. Repeats and late
-- calls change nothing: rows are keyed by what they state, and first and last are
-- a minimum and a maximum.

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

-- Calls say of traits also how to change them: $set_once, $add, $append, $union,
-- $remove, $unset, $delete and others. Each of those is a row of its own, since
-- their order and number count: its object is trait, operator and message id with
-- a zero byte between them, the trait empty where the operator is about all of
-- them, and at is the event time. So a repeat of a row changes nothing. The views
-- user_traits and account_traits carry them out in the order of event times.
{{.CreateView "identity_facts_from_events" "identity_facts"}} AS
WITH ['$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll'] AS operators
SELECT
    e.app_id AS app_id, f.1 AS fact, f.2 AS subject, f.3 AS object,
    if(fact IN ('membership', 'parent') OR position(object, '\0') > 0, e.event_time, toDateTime64(0, 6, 'UTC')) AS at, e.event_time AS first, (e.event_time, f.4) AS last
FROM {{.Local "events"}} AS e
ARRAY JOIN arrayConcat(
    if(e.user_id != '' AND e.anonymous_id != '', [('anonymous', e.anonymous_id, e.user_id, '')], []),
    if(e.kind = 'alias' AND e.user_id != '' AND e.previous_id NOT IN ('', e.user_id),
        [('anonymous', e.previous_id, e.user_id, ''), ('alias', e.previous_id, e.user_id, '')], []),
    if(e.kind IN ('group', 'identify') AND e.user_id != '' AND e.account_id != '' AND e.account_source = 'event',
        [('membership', e.user_id, e.account_id, toString(e.role))], []),
    if(e.kind = 'group' AND e.account_id != '' AND e.parent_account_id NOT IN ('', e.account_id), [('parent', e.account_id, e.parent_account_id, '')], []),
    if((e.kind = 'identify' AND e.user_id != '') OR (e.kind = 'group' AND e.account_id != ''),
        arrayMap(t -> (if(e.kind = 'group', 'account', 'user'), if(e.kind = 'group', e.account_id, e.user_id), t.1, t.2),
            arrayPushFront(arrayFilter(t -> NOT has(operators, t.1), JSONExtractKeysAndValuesRaw(toJSONString(e.traits))), ('', ''))), []),
    if((e.kind = 'identify' AND e.user_id != '') OR (e.kind = 'group' AND e.account_id != ''),
        arrayMap(t -> (if(e.kind = 'group', 'account', 'user'), if(e.kind = 'group', e.account_id, e.user_id), concat(t.1, '\0', t.2, '\0', e.message_id), t.3),
            arrayFlatten(arrayMap(
                o -> multiIf(
                    startsWith(o.2, '{'), arrayMap(t -> (t.1, o.1, t.2), JSONExtractKeysAndValuesRaw(o.2)),
                    startsWith(o.2, '['), arrayMap(t -> (t, o.1, ''), JSONExtract(o.2, 'Array(String)')),
                    [('', o.1, '')]),
                arrayFilter(t -> has(operators, t.1), JSONExtractKeysAndValuesRaw(toJSONString(e.traits)))))), [])) AS f
WHERE e.kind IN ('identify', 'group', 'alias') OR (e.user_id != '' AND e.anonymous_id != '');

{{.CreateView "identity_unlinks_from_plans" "identity_unlinks"}} AS
SELECT
    app_id, JSONExtractString(reason, 'id_kind') AS id_kind, JSONExtractString(reason, 'id') AS id, JSONExtractString(reason, 'user_id') AS user_id,
    fromUnixTimestamp64Micro(least(JSONExtractInt(reason, 'until'), 10413791999000000), 'UTC') AS until
FROM {{.Local "correction_plans"}}
WHERE chunk = 0 AND JSONExtractString(reason, 'kind') = 'unlink';
