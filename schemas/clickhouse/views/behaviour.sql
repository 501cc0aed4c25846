{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` String COMMENT 'user, anonymous or account',
    `unit_id` String COMMENT 'User, visitor or account',
    `events` Int64 COMMENT 'Events of features in the range',
    `feature_shares` Map(String, Float64) COMMENT 'Share of each feature in these events; they add up to 1',
    `active_days` UInt64 COMMENT 'Days on which it used any feature',
    `frequency` Float64 COMMENT 'active_days / days of the range',
    `days_since_last` UInt32 COMMENT 'Days from the last such day to the last day of the range',
    `recency` Float64 COMMENT '1: used on the last day of the range; towards 0: only at its beginning'
)
{{.Definer}}
COMMENT 'Behaviour of each person or account as numbers between 0 and 1, to compare them by: shares of features, frequency and recency. Parameters: app, from, to, zone, unit (person or account).'
AS
SELECT toLowCardinality({app:String}) AS app_id, who.1 AS unit_kind, who.2 AS unit_id, toInt64(sum(u.n)) AS events,
    CAST(arrayMap(f -> (f.1, f.2 / events), arraySort(groupArray((u.feature_id, u.n)))), 'Map(String, Float64)') AS feature_shares,
    uniqExactArray(u.days) AS active_days, active_days / ({to:Date} - {from:Date}) AS frequency,
    toUInt32({to:Date} - 1 - max(arrayMax(u.days))) AS days_since_last, 1 - days_since_last / ({to:Date} - {from:Date}) AS recency
FROM
(
    SELECT {{.Insight.Unit}} AS who, feature_id, sum(c.events) AS n, groupUniqArray(c.day) AS days
    FROM ({{template "counted_usage" .Insight}}) AS c
    WHERE feature_id != '' AND {{.Insight.CheckUnit}}
    GROUP BY who, feature_id
) AS u
GROUP BY who
ORDER BY unit_kind, unit_id
