{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `feature_id` String COMMENT 'Feature of the catalog',
    `events_before` Int64 COMMENT 'Events in the range before, of equal length',
    `events_now` Int64 COMMENT 'Events in the range',
    `people_before` UInt64 COMMENT 'People of the account who used it in the range before',
    `people_now` UInt64 COMMENT 'People of the account who used it in the range',
    `change` String COMMENT 'adopted: used now and not before; dropped: the reverse; spreading: by more people; shrinking: by fewer; steady: by as many'
)
{{.Definer}}
COMMENT 'Use of each feature by each account in a range and in the range of equal length before it. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, account_id, feature_id, toInt64(sumIf(u.events, day < {from:Date})) AS events_before, toInt64(sumIf(u.events, day >= {from:Date})) AS events_now,
    uniqExactIf((actor_kind, actor_id), day < {from:Date}) AS people_before, uniqExactIf((actor_kind, actor_id), day >= {from:Date}) AS people_now,
    multiIf(people_before = 0, 'adopted', people_now = 0, 'dropped', people_now > people_before, 'spreading', people_now < people_before, 'shrinking', 'steady') AS change
FROM ({{template "counted_usage" (.Insight.With "from" "({from:Date} - ({to:Date} - {from:Date}))")}}) AS u
WHERE account_id != '' AND feature_id != ''
GROUP BY account_id, feature_id
ORDER BY account_id, feature_id
