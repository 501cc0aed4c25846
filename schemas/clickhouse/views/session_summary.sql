{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `sessions` UInt64 COMMENT 'Sessions that started in the period',
    `people` UInt64 COMMENT 'People with a session',
    `sessions_per_person` Float64 COMMENT 'sessions / people',
    `events_per_session` Float64 COMMENT 'Mean number of events',
    `median_seconds` Float64 COMMENT 'Median duration',
    `single_event_rate` Float64 COMMENT 'Share of sessions of one event'
)
{{.Definer}}
COMMENT 'Sessions of each period. Parameters: app, from, to, zone, period.'
AS
SELECT toLowCardinality({app:String}) AS app_id, {{.Insight.PeriodOf "toDate(started_at, {zone:String})"}} AS period_start, count() AS sessions, uniqExact(actor_kind, actor_id) AS people, sessions / people AS sessions_per_person,
    avg(s.events) AS events_per_session, quantileExactInclusive(0.5)(s.seconds) AS median_seconds, countIf(s.events = 1) / sessions AS single_event_rate
FROM ({{template "sessions_query" .Insight}}) AS s
WHERE {{.Insight.CheckPeriod}}
GROUP BY period_start
ORDER BY period_start
