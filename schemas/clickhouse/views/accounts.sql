{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `traits` Map(String, String) COMMENT 'Traits by name: traits[''plan'']. Text as it is, other values as JSON text',
    `updated_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated a trait'
)
{{.Definer}}
COMMENT 'Customer accounts that calls named by group, with their traits'
AS
SELECT
    app_id, account_id,
    mapFromArrays(groupArrayIf(trait, trait != ''), groupArrayIf(if(startsWith(value, '"'), JSONExtractString(value), value), trait != '')) AS traits,
    max(said_at) AS updated_at
FROM (SELECT * FROM {{.View "account_traits"}} ORDER BY trait)
GROUP BY app_id, account_id
