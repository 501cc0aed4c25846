-- Clusters of users and of accounts by how they use the product, from `rollup-writer
-- cluster`. A run is told apart by computed_at. It writes its members first and its
-- clusters after them, in one block, which makes it the newest run; then it deletes
-- the rows of older ones. People read the views, which show the newest run.

{{.CreateTable "behaviour_clusters"}}
(
    `app_id` LowCardinality(String),
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'The run',
    `cluster` UInt32 COMMENT 'Number of the cluster, the largest is 1; 0: those in no cluster',
    `units` UInt64 COMMENT 'How many users or accounts are in it',
    `description` String COMMENT 'What sets it apart, in words',
    `feature_shares` Map(String, Float64) COMMENT 'Mean share of each feature in the usage of its members',
    `rest_feature_shares` Map(String, Float64) COMMENT 'The same of all others',
    `frequency` Float64 COMMENT 'Mean share of days with usage',
    `days_since_last` Float64 COMMENT 'Mean number of days from the last usage to the end of the range',
    `events` Float64 COMMENT 'Mean number of events',
    `from_day` Date,
    `to_day` Date COMMENT 'Exclusive',
    `zone` LowCardinality(String),
    `units_looked_at` UInt64 COMMENT 'Units with usage in the range',
    `units_left_out` UInt64 COMMENT 'Those of them with fewer than min_events events',
    `units_sampled` UInt64 COMMENT 'Those that the clusters were found from; others were assigned',
    `min_events` UInt32,
    `min_points` UInt32,
    `eps` Float64,
    `seed` UInt64
)
ENGINE = {{.ReplacingMergeTree ""}}
ORDER BY (app_id, unit_kind, computed_at, cluster)
COMMENT 'Clusters of users and accounts by behaviour';

{{.CreateDistributed "behaviour_clusters"}};

{{.CreateTable "behaviour_cluster_members"}}
(
    `app_id` LowCardinality(String),
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'The run',
    `unit_id` String COMMENT 'User or account',
    `cluster` UInt32 COMMENT '0: in no cluster',
    `distance` Float64 COMMENT 'Distance from the mean of the cluster'
)
ENGINE = {{.ReplacingMergeTree ""}}
ORDER BY (app_id, unit_kind, computed_at, unit_id)
COMMENT 'Which user or account is in which cluster';

{{.CreateDistributed "behaviour_cluster_members"}};
