{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `value` String COMMENT 'Value of the dimension; empty: none',
    `active_people` UInt64 COMMENT 'People: users, and visitors who are not known to be users',
    `active_users` UInt64 COMMENT 'Users among them',
    `active_accounts` UInt64 COMMENT 'Accounts with activity',
    `events` Int64 COMMENT 'Events that count as activity'
)
{{.Definer}}
COMMENT 'Active users and accounts of each period by a dimension. A person may be active under several values. Parameters: app, from, to, zone, period, by (product, module, feature, account, role, account.<trait> or user.<trait>).'
AS
SELECT toLowCardinality({app:String}) AS app_id, period_start, value, active_people, active_users, active_accounts, events
FROM ({{template "active_users_query" .Insight}})
