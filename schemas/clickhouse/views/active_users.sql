{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `active_people` UInt64 COMMENT 'People: users, and visitors who are not known to be users',
    `active_users` UInt64 COMMENT 'Users among them',
    `active_visitors` UInt64 COMMENT 'Visitors among them',
    `active_accounts` UInt64 COMMENT 'Accounts with activity',
    `events` Int64 COMMENT 'Events that count as activity'
)
{{.Definer}}
COMMENT 'Active users, visitors and accounts of each period: those with an event that counts as activity. Parameters: app, from, to, zone, period (day, week, sunday_week, month or quarter).'
AS
SELECT toLowCardinality({app:String}) AS app_id, period_start, active_people, active_users, toUInt64(active_people - active_users) AS active_visitors, active_accounts, events
FROM ({{template "active_users_query" (.Insight.With "by" "''")}})
