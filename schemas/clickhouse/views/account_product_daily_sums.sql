{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events, signed: sum it',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for, signed: sum it'
)
{{.Definer}}
COMMENT 'The rows of account_product_daily before they are summed: right for sum(events) and sum(quantity), grouped by anything, and for nothing else. A key may have several rows, and rows whose sum is 0'
AS
SELECT app_id, account_id, product_id, day, events, quantity
FROM {{.Table "account_product_daily"}}
