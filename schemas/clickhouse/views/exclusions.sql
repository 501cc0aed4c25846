{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `kind` LowCardinality(String) COMMENT 'user, anonymous, account or role',
    `id` String COMMENT 'User, anonymous id, account or role that is left out',
    `reason` String COMMENT 'Definition that says so'
)
{{.Definer}}
COMMENT 'Who is left out of all views about usage, and why, as of now. Parameters: app.'
AS
SELECT toLowCardinality({app:String}) AS app_id, kind, id, min(why) AS reason
FROM ({{template "exclusions_query" .Insight}})
GROUP BY kind, id
ORDER BY kind, id
