{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `reason` String COMMENT 'Definition that leaves it out; usage that several leave out counts for each',
    `people` UInt64 COMMENT 'People left out',
    `accounts` UInt64 COMMENT 'Accounts left out',
    `events` Int64 COMMENT 'Events left out'
)
{{.Definer}}
COMMENT 'What the definitions leave out of a range, by reason. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, x.reason AS reason, uniqExact(u.actor_kind, u.actor_id) AS people, uniqExactIf(u.account_id, u.account_id != '') AS accounts, toInt64(sum(u.events)) AS events
FROM
(
    SELECT account_id, actor_id, actor_kind, events, arrayJoin([(actor_kind, actor_id), ('account', account_id), ('role', role)]) AS part
    FROM ({{template "usage_cells" .Insight}})
    WHERE actor_kind NOT IN ('account', 'erased')
) AS u
INNER JOIN (SELECT kind, id, min(why) AS reason FROM ({{template "exclusions_query" .Insight}}) GROUP BY kind, id) AS x ON x.kind = u.part.1 AND x.id = u.part.2
GROUP BY reason
ORDER BY events DESC, reason
