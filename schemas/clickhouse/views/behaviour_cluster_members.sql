{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `unit_id` String COMMENT 'User or account',
    `cluster` UInt32 COMMENT 'Number of its cluster; 0: in none',
    `distance` Float64 COMMENT 'Distance of its behaviour from the mean of its cluster: the smallest is the most typical. Of cluster 0, from the mean of those in none',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'When rollup-writer cluster ran'
)
{{.Definer}}
COMMENT 'Which user or account is in which cluster of behaviour, as of the last rollup-writer cluster: a filter for other questions, as in actor_id IN (SELECT unit_id FROM behaviour_cluster_members WHERE app_id = ... AND unit_kind = ''user'' AND cluster = ...)'
AS
SELECT app_id, unit_kind, unit_id, cluster, distance, computed_at
FROM {{.Table "behaviour_cluster_members"}} FINAL
WHERE (app_id, unit_kind, computed_at) GLOBAL IN (SELECT app_id, unit_kind, max(computed_at) FROM {{.Table "behaviour_clusters"}} GROUP BY app_id, unit_kind)
ORDER BY app_id, unit_kind, cluster, unit_id
