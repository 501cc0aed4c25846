{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `version` UInt32 COMMENT 'Version in force',
    `use` LowCardinality(String) COMMENT 'What it is for',
    `match` LowCardinality(String) COMMENT 'What is matched',
    `key` String COMMENT 'Trait, of rules that match traits',
    `value` String COMMENT 'What it is matched with'
)
{{.Definer}}
COMMENT 'Definitions in force: what counts as active, who is left out, which events are milestones. Parameters: app.'
AS
SELECT toLowCardinality({app:String}) AS app_id, version, toString(use) AS use, toString(match) AS match, key, value
FROM {{.Table "insight_rules"}}
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM {{.Table "insight_rules"}} WHERE app_id = {app:String})
ORDER BY use, match, key, value
