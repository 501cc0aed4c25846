{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` String COMMENT 'user, anonymous or account',
    `unit_id` String COMMENT 'Id of the person or account',
    `level` UInt8 COMMENT 'Number of the furthest step',
    `step_times` Array(DateTime64(6, 'UTC')) COMMENT 'Times of the steps, where the order of equal times allows to tell',
    `value` String COMMENT 'Value of the dimension at the first step'
)
{{.Definer}}
COMMENT 'How far each person or account came in a funnel, and when. Parameters: app, from, to, zone, steps, window (seconds), unit (person or account), by (as active_users_by; empty: none).'
AS
SELECT toLowCardinality({app:String}) AS app_id, unit_kind, unit_id, level, step_times, value
FROM ({{template "funnel_people_query" .Insight}})
