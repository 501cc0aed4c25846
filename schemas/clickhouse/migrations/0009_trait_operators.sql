-- What calls say of traits beside setting them: $set_once, $add, $append, $union,
-- $remove, $unset, $delete and their kin. identity_facts keeps each of them as a
-- row of its own, since their order and number count, and user_traits and
-- account_traits carry them out in the order of event times.

-- They are facts user and account, too. Their object is trait, operator and
-- message id with a zero byte between them, the trait empty where the operator is
-- about all of them; at is the event time. So repeats of a row change nothing.
ALTER TABLE {{.Table "identity_facts_from_events"}}{{.OnCluster}} MODIFY QUERY
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

-- Each trait's calls in order, folded. Of a plain trait the last call is enough:
-- whatever was said of it before does not count. A call that deletes everything
-- ends what was said up to then.
CREATE OR REPLACE VIEW {{.Table "user_traits"}}{{.OnCluster}} AS
WITH
    x -> if(startsWith(x, '['), JSONExtractArrayRaw(x), if(x = '', [], [x])) AS list,
    x -> concat('[', arrayStringConcat(x, ','), ']') AS text
SELECT
    app_id, user_id, trait,
    arrayFold(
        (had, step) -> multiIf(
            step.3 = '$set', step.4,
            step.3 IN ('$set_once', '$setOnce'), if(had = '', step.4, had),
            step.3 = '$add', toString(toFloat64OrZero(had) + toFloat64OrZero(step.4)),
            step.3 = '$append', text(arrayConcat(list(had), list(step.4))),
            step.3 = '$prepend', text(arrayConcat(list(step.4), list(had))),
            step.3 IN ('$union', '$postInsert'), text(arrayDistinct(arrayConcat(list(had), list(step.4)))),
            step.3 = '$preInsert', text(arrayDistinct(arrayConcat(arrayFilter(v -> NOT has(list(had), v), list(step.4)), list(had)))),
            step.3 = '$remove' AND had != '', text(arrayFilter(v -> NOT has(list(step.4), v), list(had))),
            ''),
        arrayFilter(step -> step.1 > deleted_at OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, user_id, trait, arraySort(groupArray((at, call_id, operator, value))) AS steps, max(at) AS said_at, any(deleted_at) AS deleted_at
    FROM
    (
        SELECT
            app_id, subject AS user_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, said.1 AS at, said.2 AS value,
            maxIf(said.1, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_at
        FROM
        (
            SELECT app_id, subject, object, max(f.last) AS said
            FROM {{.Table "identity_facts"}} AS f
            WHERE fact = 'user'
            GROUP BY app_id, subject, object
        )
        WHERE trait NOT IN ('$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll')
    )
    GROUP BY app_id, user_id, trait
)
WHERE trait = '' OR value != '';

CREATE OR REPLACE VIEW {{.Table "account_traits"}}{{.OnCluster}} AS
WITH
    x -> if(startsWith(x, '['), JSONExtractArrayRaw(x), if(x = '', [], [x])) AS list,
    x -> concat('[', arrayStringConcat(x, ','), ']') AS text
SELECT
    app_id, account_id, trait,
    arrayFold(
        (had, step) -> multiIf(
            step.3 = '$set', step.4,
            step.3 IN ('$set_once', '$setOnce'), if(had = '', step.4, had),
            step.3 = '$add', toString(toFloat64OrZero(had) + toFloat64OrZero(step.4)),
            step.3 = '$append', text(arrayConcat(list(had), list(step.4))),
            step.3 = '$prepend', text(arrayConcat(list(step.4), list(had))),
            step.3 IN ('$union', '$postInsert'), text(arrayDistinct(arrayConcat(list(had), list(step.4)))),
            step.3 = '$preInsert', text(arrayDistinct(arrayConcat(arrayFilter(v -> NOT has(list(had), v), list(step.4)), list(had)))),
            step.3 = '$remove' AND had != '', text(arrayFilter(v -> NOT has(list(step.4), v), list(had))),
            ''),
        arrayFilter(step -> step.1 > deleted_at OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, account_id, trait, arraySort(groupArray((at, call_id, operator, value))) AS steps, max(at) AS said_at, any(deleted_at) AS deleted_at
    FROM
    (
        SELECT
            app_id, subject AS account_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, said.1 AS at, said.2 AS value,
            maxIf(said.1, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_at
        FROM
        (
            SELECT app_id, subject, object, max(f.last) AS said
            FROM {{.Table "identity_facts"}} AS f
            WHERE fact = 'account'
            GROUP BY app_id, subject, object
        )
        WHERE trait NOT IN ('$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll')
    )
    GROUP BY app_id, account_id, trait
)
WHERE trait = '' OR value != '';
