{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `health_id` LowCardinality(String) COMMENT 'Id of the definition',
    `account_id` String COMMENT 'Customer account',
    `score` Float64 COMMENT '0 to 100',
    `band` LowCardinality(String) COMMENT 'Band that the score lies in',
    `score_4w` Float64 COMMENT 'Score 4 weeks before, from history as now known',
    `score_12w` Float64 COMMENT 'Score 12 weeks before, from history as now known',
    `reason` String COMMENT 'Part that changed the score most in 4 weeks',
    `consequence` Nullable(Float64) COMMENT 'Trait of the account that weighs it, such as the contract value',
    `priority` Float64 COMMENT 'What is at stake: missing share of the score times consequence (1 without one)',
    `owner` String COMMENT 'Trait owner of the account, else owner of the definition',
    `day` Date COMMENT 'Last UTC day that counts',
    `version` UInt32 COMMENT 'Version of the definition'
)
{{.Definer}}
COMMENT 'Health of accounts, what to look at first at the top; account_health_parts has the components'
AS
SELECT app_id, health_id, account_id, score, band, score_4w, score_12w, reason, consequence, priority, owner, day, version
FROM {{.Table "health_scores"}} FINAL
WHERE NOT removed
ORDER BY priority DESC, app_id, health_id, account_id
