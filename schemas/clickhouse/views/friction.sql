{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `step` String COMMENT 'Feature, or event: and the name of an unmapped event',
    `events` UInt64 COMMENT 'Events of it',
    `people` UInt64 COMMENT 'People who met it',
    `accounts` UInt64 COMMENT 'Accounts that met it',
    `people_repeating` UInt64 COMMENT 'People who met it three times within ten seconds'
)
{{.Definer}}
COMMENT 'Friction: events of features of kind friction, and those defined as friction, with rage repeats. Parameters: app, from, to, zone.'
AS
WITH
    (SELECT groupArray(feature_id) FROM {{.Table "catalog_features"}} FINAL WHERE app_id = {app:String} AND kind = 'friction' AND removed = 0) AS marked,
    (SELECT groupArray(concat(match, ':', value)) FROM ({{template "definitions" .Insight}}) WHERE use = 'friction') AS defined
SELECT toLowCardinality({app:String}) AS app_id, step, toUInt64(sum(n)) AS events, count() AS people, uniqExactArray(accounts_of) AS accounts,
    countIf(arrayExists((t, third) -> third - t <= 10000000, arraySlice(times, 1, greatest(n, 2) - 2), arraySlice(times, 3))) AS people_repeating
FROM
(
    SELECT if(feature_id != '', feature_id, concat('event:', event)) AS step, actor_kind, actor_id, count() AS n, arraySort(groupArray(toUnixTimestamp64Micro(event_time))) AS times,
        groupUniqArrayIf(account_id, account_id != '') AS accounts_of
    FROM ({{template "counted_events" ((.Insight.With "columns" "event, event_time, source_offset").With "where" "1")}})
    WHERE has(marked, feature_id) OR has(defined, concat('feature:', feature_id)) OR has(defined, concat('event:', event))
    GROUP BY step, actor_kind, actor_id
)
GROUP BY step
ORDER BY events DESC, step
