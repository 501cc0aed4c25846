{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `path` Array(String) COMMENT 'Steps in order, repeats folded',
    `sessions` UInt64 COMMENT 'Sessions with that path',
    `people` UInt64 COMMENT 'People with such a session'
)
{{.Definer}}
COMMENT 'What people do after a step, within the session: paths from the first occurrence of the step. Parameters: app, from, to, zone, step (feature id or event:<name>), length (steps of a path).'
AS
SELECT toLowCardinality({app:String}) AS app_id, arraySlice(folded, indexOf(folded, {step:String}), {length:UInt8}) AS path, count() AS sessions, uniqExact(actor_kind, actor_id) AS people
FROM
(
    SELECT actor_kind, actor_id, arrayCompact(steps) AS folded
    FROM ({{template "sessions_query" .Insight}})
    WHERE has(steps, {step:String})
)
GROUP BY path
ORDER BY sessions DESC, path
