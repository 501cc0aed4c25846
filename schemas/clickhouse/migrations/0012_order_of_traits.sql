-- Of two calls that state one trait with the same event time the later one counts:
-- the one received later, and of those received at once the one behind the other in
-- the log. last alone made it the one with the greater text. Rows from before this
-- have nothing in stated, and last goes on to say what they stated.

{{.Alter "identity_facts"}}
    ADD COLUMN IF NOT EXISTS `stated` SimpleAggregateFunction(max, Tuple(at DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), source_offset Int64, value String)) COMMENT 'Traits: the latest call, its place, and the JSON text of the trait that it said; 1970: no call since the column was added. max it' AFTER `last`;

{{if .Form.Cluster}}ALTER TABLE {{.Table "identity_facts"}}{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS `stated` SimpleAggregateFunction(max, Tuple(at DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), source_offset Int64, value String)) AFTER `last`;{{end}}

{{.AlterView "identity_facts_from_events"}}
WITH ['$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll'] AS operators
SELECT
    e.app_id AS app_id, f.1 AS fact, f.2 AS subject, f.3 AS object,
    if(fact IN ('membership', 'parent') OR position(object, '\0') > 0, e.event_time, toDateTime64(0, 6, 'UTC')) AS at, e.event_time AS first, (e.event_time, f.4) AS last,
    if(fact IN ('user', 'account'), (e.event_time, e.received_at, e.source_offset, f.4), (toDateTime64(0, 6, 'UTC'), toDateTime64(0, 6, 'UTC'), toInt64(0), '')) AS stated
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
