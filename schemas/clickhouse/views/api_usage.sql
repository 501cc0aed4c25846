{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `method` String COMMENT 'HTTP method',
    `route` String COMMENT 'Route, with placeholders for ids',
    `status_class` String COMMENT '2xx, 3xx, 4xx or 5xx',
    `calls` UInt64 COMMENT 'Number of calls',
    `people` UInt64 COMMENT 'People who called',
    `accounts` UInt64 COMMENT 'Accounts that called',
    `p50_ms` Nullable(Float64) COMMENT 'Median duration in milliseconds',
    `p95_ms` Nullable(Float64) COMMENT '95th percentile of the duration in milliseconds'
)
{{.Definer}}
COMMENT 'API calls by method, route and class of status, with latency. Parameters: app, from, to, zone.'
AS
WITH
    {{template "settings" .Insight}}
SELECT toLowCardinality({app:String}) AS app_id, toString(properties.method) AS method, toString(properties.route) AS route, concat(substring(toString(properties.status), 1, 1), 'xx') AS status_class,
    count() AS calls, uniqExactIf((actor_kind, actor_id), actor_kind != 'account') AS people, uniqExactIf(e.account_id, e.account_id != '') AS accounts,
    quantileExactInclusiveOrNull(0.5)(toFloat64OrNull(toString(properties.duration_ms))) AS p50_ms, quantileExactInclusiveOrNull(0.95)(toFloat64OrNull(toString(properties.duration_ms))) AS p95_ms
FROM ({{template "events_now_query" ((.Insight.With "columns" "event_time, properties, source_offset").With "where" "kind = 'api_call' AND NOT (notEmpty(excluded_agents) AND user_id = '' AND anonymous_id = '' AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))")}}) AS e
WHERE account_id NOT IN excluded_accounts AND NOT (actor_kind = 'user' AND actor_id IN excluded_users)
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN ({{template "bots" .Insight}}))
GROUP BY method, route, status_class
ORDER BY calls DESC, method, route, status_class
