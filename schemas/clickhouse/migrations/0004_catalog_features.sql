-- The catalog as ClickHouse sees it: catalog_features is the newest version of
-- each app (read it with FINAL), catalog_features_history every version.

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
COMMENT 'Features, modules and products of the newest catalog of each app: use FINAL';

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
COMMENT 'Features of every version of the catalog: use FINAL';

{{.CreateDistributed "catalog_features_history"}};
