{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature',
    `feature_name` String COMMENT 'Name of the feature',
    `module_id` String COMMENT 'Module of the feature',
    `module_name` String COMMENT 'Name of the module',
    `product_id` String COMMENT 'Product of the module',
    `product_name` String COMMENT 'Name of the product',
    `owner` String COMMENT 'Team that is responsible for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64 COMMENT 'Version of the catalog',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When that version was applied'
)
{{.Definer}}
COMMENT 'Features, modules and products of the catalog in force'
AS
SELECT app_id, feature_id, feature_name, module_id, module_name, product_id, product_name, owner, purpose, kind, status, catalog_version, applied_at
FROM {{.Table "catalog_features"}} FINAL
WHERE removed = 0
