{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `step` UInt32 COMMENT 'Number of the step, from 1',
    `step_name` String COMMENT 'Feature, or event: and the name of an event',
    `people` UInt64 COMMENT 'People who came this far',
    `conversion_from_first` Float64 COMMENT 'Share of those of the first step',
    `conversion_from_previous` Nullable(Float64) COMMENT 'Share of those of the step before',
    `median_seconds_from_previous` Nullable(Float64) COMMENT 'Median time from the step before',
    `p90_seconds_from_previous` Nullable(Float64) COMMENT '90th percentile of the time from the step before'
)
{{.Definer}}
COMMENT 'Ordered funnel of people: all steps in order within window seconds of the first; other events may lie between. Parameters: app, from, to, zone, steps (array of feature ids or event:<name>), window (seconds).'
AS
SELECT app_id, step, step_name, reached AS people, conversion_from_first, conversion_from_previous, median_seconds_from_previous, p90_seconds_from_previous
FROM ({{template "funnel_query" ((.Insight.With "unit" "'person'").With "by" "''")}})
