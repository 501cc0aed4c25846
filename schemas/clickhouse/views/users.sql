{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `traits` Map(String, String) COMMENT 'Traits by name: traits[''plan'']. Text as it is, other values as JSON text',
    `updated_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated a trait'
)
{{.Definer}}
COMMENT 'Users that calls named by identify, with their traits'
AS
SELECT
    app_id, user_id,
    mapFromArrays(groupArrayIf(trait, trait != ''), groupArrayIf(if(startsWith(value, '"'), JSONExtractString(value), value), trait != '')) AS traits,
    max(said_at) AS updated_at
FROM (SELECT * FROM {{.View "user_traits"}} ORDER BY trait)
GROUP BY app_id, user_id
