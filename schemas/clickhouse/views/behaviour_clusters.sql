{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `cluster` UInt32 COMMENT 'Number of the cluster, the largest is 1; 0: those in no cluster. Another run may number them otherwise',
    `units` UInt64 COMMENT 'How many users or accounts are in it',
    `share` Float64 COMMENT 'Share of all that were grouped',
    `description` String COMMENT 'What sets it apart from the rest, in words',
    `feature_shares` Map(String, Float64) COMMENT 'Mean share of each feature in the usage of its members',
    `rest_feature_shares` Map(String, Float64) COMMENT 'The same of all others that were grouped',
    `frequency` Float64 COMMENT 'Mean share of the days of the range with usage',
    `days_since_last` Float64 COMMENT 'Mean number of days from the last usage to the last day of the range',
    `events` Float64 COMMENT 'Mean number of events of features in the range',
    `from_day` Date COMMENT 'First day of the range',
    `to_day` Date COMMENT 'Day after the last one',
    `zone` LowCardinality(String) COMMENT 'Time zone of the days',
    `units_looked_at` UInt64 COMMENT 'Users or accounts with usage of features in the range',
    `units_left_out` UInt64 COMMENT 'Those of them with fewer than min_events events, which are not grouped',
    `units_sampled` UInt64 COMMENT 'Those that the clusters were found from; the others were assigned to the nearest',
    `min_events` UInt32 COMMENT 'Fewest events of a unit that is grouped',
    `min_points` UInt32 COMMENT 'How many units within eps make a core',
    `eps` Float64 COMMENT 'Distance within which units are neighbours',
    `seed` UInt64 COMMENT 'What the sample was drawn with',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'When rollup-writer cluster ran'
)
{{.Definer}}
COMMENT 'Clusters of users and of accounts by how they use the product, and what sets each apart, as of the last rollup-writer cluster'
AS
SELECT app_id, unit_kind, cluster, units, units / sum(units) OVER (PARTITION BY app_id, unit_kind) AS share, description, feature_shares, rest_feature_shares, frequency, days_since_last, events,
    from_day, to_day, zone, units_looked_at, units_left_out, units_sampled, min_events, min_points, eps, seed, computed_at
FROM {{.Table "behaviour_clusters"}} FINAL
WHERE (app_id, unit_kind, computed_at) GLOBAL IN (SELECT app_id, unit_kind, max(computed_at) FROM {{.Table "behaviour_clusters"}} GROUP BY app_id, unit_kind)
ORDER BY app_id, unit_kind, cluster
