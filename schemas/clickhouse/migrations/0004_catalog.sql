-- The catalog: catalog_features and catalog_metrics hold the newest version of
-- each app, catalog_features_history every version. Rows of one key are replaced
-- when parts merge: people read the views of the same names.

{{.CreateTable "catalog_features"}}
(
    `app_id` LowCardinality(String),
    `feature_id` String,
    `feature_name` String,
    `module_id` String,
    `module_name` String,
    `product_id` String,
    `product_name` String,
    `owner` String COMMENT 'Team that answers for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64,
    `applied_at` DateTime64(3, 'UTC'),
    `removed` UInt8 COMMENT '1: no longer in the catalog'
)
ENGINE = {{.ReplacingMergeTree "catalog_version, removed"}}
ORDER BY (app_id, feature_id)
COMMENT 'Features, modules and products of the newest catalog of each app';

{{.CreateDistributed "catalog_features"}};

{{.CreateTable "catalog_features_history"}}
(
    `app_id` LowCardinality(String),
    `feature_id` String,
    `feature_name` String,
    `module_id` String,
    `module_name` String,
    `product_id` String,
    `product_name` String,
    `owner` String COMMENT 'Team that answers for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64,
    `applied_at` DateTime64(3, 'UTC'),
    `removed` UInt8 COMMENT '1: this version took it out'
)
ENGINE = {{.ReplacingMergeTree "applied_at"}}
ORDER BY (app_id, feature_id, catalog_version)
COMMENT 'Features of every version of the catalog';

{{.CreateDistributed "catalog_features_history"}};

{{.CreateTable "catalog_metrics"}}
(
    `app_id` LowCardinality(String),
    `event` String COMMENT 'Name of metric events that report it',
    `metric_id` String,
    `metric_name` String,
    `semantics` LowCardinality(String) COMMENT 'delta, gauge or cumulative',
    `unit` String,
    `owner` String COMMENT 'Team that answers for it',
    `purpose` String,
    `catalog_version` Int64,
    `applied_at` DateTime64(3, 'UTC'),
    `removed` UInt8 COMMENT '1: no longer in the catalog'
)
ENGINE = {{.ReplacingMergeTree "catalog_version, removed"}}
ORDER BY (app_id, event)
COMMENT 'Metrics of the newest catalog of each app by the names of their events';

{{.CreateDistributed "catalog_metrics"}};
