{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `seats` UInt64 COMMENT 'Seats of the account, from the defined trait (seats by default)',
    `active_users` UInt64 COMMENT 'Active users of the account in the range',
    `utilization` Nullable(Float64) COMMENT 'active_users / seats'
)
{{.Definer}}
COMMENT 'Licence utilization: active users and seats of each account that states seats. Parameters: app, from, to, zone.'
AS
WITH
    {{template "settings" .Insight}}
SELECT toLowCardinality({app:String}) AS app_id, s.account_id AS account_id, s.seats AS seats, a.users AS active_users, active_users / nullIf(s.seats, 0) AS utilization
FROM
(
    SELECT subject AS account_id, {{template "stated"}}.4 AS said, toUInt64OrZero(trim(BOTH '"' FROM said)) AS seats
    FROM {{.Table "identity_facts"}} AS f
    WHERE app_id = {app:String} AND fact = 'account' AND object != ''
        AND substringIndex(object, '\0', 1) = (SELECT if(count() = 0, 'seats', max(key)) FROM ({{template "definitions" .Insight}}) WHERE use = 'seats')
    GROUP BY account_id
) AS s
LEFT JOIN
(
    SELECT account_id, uniqExactIf(actor_id, actor_kind = 'user') AS users
    FROM ({{template "counted_usage" .Insight}})
    WHERE active
    GROUP BY account_id
) AS a ON a.account_id = s.account_id
WHERE s.account_id NOT IN excluded_accounts
ORDER BY account_id
