{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `traits` Map(String, String) COMMENT 'Traits as last stated',
    `ancestors` Array(String) COMMENT 'Parent account, its parent, and so on, today',
    `children` Array(String) COMMENT 'Accounts whose parent it is today',
    `roles` Map(String, UInt64) COMMENT 'Number of memberships in force by role',
    `active_users` UInt64 COMMENT 'Users with usage in the range',
    `active_visitors` UInt64 COMMENT 'Visitors with usage in the range',
    `active_days` UInt64 COMMENT 'Days with usage in the range',
    `events` Int64 COMMENT 'Events in the range',
    `features_used` Array(String) COMMENT 'Features used in the range',
    `core_features_used` Array(String) COMMENT 'Core features among them',
    `core_features_missing` Array(String) COMMENT 'Active core features of the catalog that it did not use',
    `first_seen_hour` DateTime('UTC') COMMENT 'Hour of the first usage of all time',
    `last_seen_hour` DateTime('UTC') COMMENT 'Hour of the last usage before the end of the range',
    `metrics` Map(String, Float64) COMMENT 'Latest value of each reported metric, summed over its dimensions'
)
{{.Definer}}
COMMENT 'One row for each account: who it is, who uses it, what it uses. Filter by account_id. Parameters: app, from, to, zone.'
AS
WITH
    {{template "settings" .Insight}},
    (SELECT groupArray(feature_id) FROM {{.Table "catalog_features"}} FINAL WHERE app_id = {app:String} AND kind = 'core' AND status = 'active' AND removed = 0) AS core
SELECT toLowCardinality({app:String}) AS app_id, k.account_id AS account_id, t.traits AS traits, p.ancestors AS ancestors, c.children AS children, m.roles AS roles,
    u.active_users AS active_users, u.active_visitors AS active_visitors, u.active_days AS active_days, u.events AS events, arraySort(u.features) AS features_used,
    arraySort(arrayFilter(f -> has(u.features, f), core)) AS core_features_used, arraySort(arrayFilter(f -> NOT has(u.features, f), core)) AS core_features_missing,
    u.first_hour AS first_seen_hour, u.last_hour AS last_seen_hour, v.latest AS metrics
FROM
(
    SELECT DISTINCT account_id FROM
    (
        SELECT multiIf(fact = 'account', subject, object) AS account_id FROM {{.Table "identity_facts"}} WHERE app_id = {app:String} AND fact IN ('account', 'membership')
        UNION ALL SELECT account_id FROM {{.Table "account_product_daily"}} WHERE app_id = {app:String} GROUP BY account_id HAVING sum(events) != 0
    ) WHERE account_id != '' AND account_id NOT IN excluded_accounts
) AS k
LEFT JOIN (SELECT account_id, traits FROM {{.View "accounts"}} WHERE app_id = {app:String}) AS t ON t.account_id = k.account_id
LEFT JOIN (SELECT account_id, arraySlice(a.ancestors, 2) AS ancestors FROM {{.View "account_paths"}} AS a WHERE app_id = {app:String}) AS p ON p.account_id = k.account_id
LEFT JOIN
(
    SELECT x.ancestors[2] AS parent_id, arraySort(groupArray(x.account_id)) AS children
    FROM {{.View "account_paths"}} AS x WHERE x.app_id = {app:String} AND length(x.ancestors) > 1 GROUP BY parent_id
) AS c ON c.parent_id = k.account_id
LEFT JOIN
(
    SELECT account_id, CAST(sumMap([role], [toUInt64(1)]), 'Map(String, UInt64)') AS roles
    FROM (SELECT account_id, toString(role) AS role, user_id FROM {{.View "memberships_history"}} WHERE app_id = {app:String} AND valid_to = toDateTime64('2299-12-31 23:59:59', 6, 'UTC'))
    GROUP BY account_id
) AS m ON m.account_id = k.account_id
LEFT JOIN
(
    SELECT account_id, uniqExactIf(actor_id, day >= {from:Date} AND actor_kind = 'user') AS active_users, uniqExactIf(actor_id, day >= {from:Date} AND actor_kind = 'anonymous') AS active_visitors,
        uniqExactIf(day, day >= {from:Date}) AS active_days, toInt64(sumIf(w.events, day >= {from:Date})) AS events, groupUniqArrayIf(feature_id, day >= {from:Date} AND feature_id != '') AS features,
        min(hour) AS first_hour, max(hour) AS last_hour
    FROM ({{template "counted_usage" (.Insight.With "from" "toDate('1970-01-03')")}}) AS w
    GROUP BY account_id
) AS u ON u.account_id = k.account_id
LEFT JOIN
(
    SELECT account_id, mapFromArrays(groupArray(name), groupArray(value)) AS latest
    FROM (SELECT account_id, if(number = '', metric_id, concat(metric_id, '.', number)) AS name, sum(x.value) AS value FROM {{.View "account_metrics"}} AS x WHERE app_id = {app:String} GROUP BY account_id, name ORDER BY name)
    GROUP BY account_id
) AS v ON v.account_id = k.account_id
ORDER BY account_id
