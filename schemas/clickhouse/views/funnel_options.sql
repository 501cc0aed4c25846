{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `value` String COMMENT 'Value of the dimension at the first step; empty: none',
    `step` UInt32 COMMENT 'Number of the step, from 1',
    `step_name` String COMMENT 'Feature, or event: and the name of an event; empty for any order, where step n is the n-th different one',
    `reached` UInt64 COMMENT 'People or accounts who came this far',
    `conversion_from_first` Float64 COMMENT 'Share of those of the first step',
    `conversion_from_previous` Nullable(Float64) COMMENT 'Share of those of the step before',
    `median_seconds_from_previous` Nullable(Float64) COMMENT 'Median time from the step before',
    `p90_seconds_from_previous` Nullable(Float64) COMMENT '90th percentile of the time from the step before'
)
{{.Definer}}
COMMENT 'Funnel of people or accounts with a choice of order and with events that end a try. Parameters: app, from, to, zone, steps, window (seconds), unit (person or account), by (as active_users_by; empty: none), ordering (ordered: other events may lie between; strict: none may; any: the steps in any order), without (array of feature ids or event:<name>; an event of these ends the try).'
AS
{{template "funnel_query" (.Insight.With "tries" "1")}}
