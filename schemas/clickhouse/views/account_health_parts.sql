{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `health_id` LowCardinality(String) COMMENT 'Id of the definition',
    `account_id` String COMMENT 'Customer account',
    `part` String COMMENT 'Id of the component',
    `kind` LowCardinality(String) COMMENT 'behaviour, friction or revenue',
    `value` Float64 COMMENT 'Measured value, or trait',
    `yardstick` Float64 COMMENT 'Value at which the component is full; of friction, at its worst',
    `weight` Float64 COMMENT 'Weight in the score',
    `share` Float64 COMMENT '0 to 1: the score is 100 times the weighted mean of shares',
    `change_4w` Float64 COMMENT 'Points of the score that it brought or took in 4 weeks',
    `sentence` String COMMENT 'The component in words',
    `day` Date COMMENT 'Last UTC day that counts'
)
{{.Definer}}
COMMENT 'Components of the health of accounts'
AS
SELECT app_id, health_id, account_id, p.id AS part, toLowCardinality(p.kind) AS kind, p.value AS value, p.yardstick AS yardstick, p.weight AS weight, p.share AS share, p.change AS change_4w, p.sentence AS sentence, day
FROM (SELECT app_id, health_id, account_id, day, parts FROM {{.Table "health_scores"}} FINAL WHERE NOT removed)
ARRAY JOIN parts AS p
ORDER BY app_id, health_id, account_id, part
