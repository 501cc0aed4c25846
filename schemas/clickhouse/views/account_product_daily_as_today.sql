{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
{{.Definer}}
COMMENT 'Usage of a product by an account on a day, once for the account itself and once for each account above it, as they are above it today. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM {{.View "account_product_daily"}} AS r
LEFT JOIN {{.View "account_paths"}} AS p ON p.app_id = r.app_id AND p.account_id = r.account_id
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position
