{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `hour_start` DateTime('UTC') COMMENT 'Start of the hour of the zone',
    `active_people` UInt64 COMMENT 'People: users, and visitors who are not known to be users',
    `active_users` UInt64 COMMENT 'Users among them',
    `active_accounts` UInt64 COMMENT 'Accounts with activity',
    `events` Int64 COMMENT 'Events that count as activity'
)
{{.Definer}}
COMMENT 'Active users and accounts of each hour of UTC whose start lies in the days of the zone. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, hour AS hour_start, uniqExact(actor_kind, actor_id) AS active_people, uniqExactIf(actor_id, actor_kind = 'user') AS active_users,
    uniqExactIf(account_id, account_id != '') AS active_accounts, toInt64(sum(u.events)) AS events
FROM ({{template "counted_usage" .Insight}}) AS u
WHERE active
GROUP BY hour
ORDER BY hour
