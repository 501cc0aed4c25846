{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
{{.Definer}}
COMMENT 'Usage of a feature by an account on a day: one row for each, without those whose events were all moved elsewhere. For sums alone account_feature_daily_sums costs less'
AS
SELECT app_id, account_id, feature_id, module_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM {{.Table "account_feature_daily"}} AS r
GROUP BY app_id, account_id, feature_id, module_id, product_id, day
HAVING events != 0 OR quantity != 0
