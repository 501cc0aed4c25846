-- title: Features, modules and products
-- definition: Breadth: people who used the feature in the period, and their share of all active people. Depth: events per person who used it. Feature, module and product are those that the event counts for today.
WITH active AS
(
    SELECT uniqExact(actor_kind, actor_id) AS people
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND actor_kind != 'account' AND actor_id != ''
)
SELECT
    f.product_id AS product_id, f.module_id AS module_id, f.feature_id AS feature_id,
    any(c.feature_name) AS feature_name, any(c.module_name) AS module_name, any(c.product_name) AS product_name,
    any(c.kind) AS kind, any(c.status) AS status, any(c.owner) AS owner,
    uniqExactIf((actor_kind, actor_id), now_in AND person) AS people,
    uniqExactIf((actor_kind, actor_id), NOT now_in AND person) AS people_before,
    if(any(active.people) = 0, 0, people / any(active.people)) AS breadth,
    uniqExactIf(account_id, now_in AND account_id != '') AS accounts,
    sumIf(f.events, now_in) AS uses,
    if(people = 0, 0, sumIf(f.events, now_in AND person) / people) AS depth,
    sumMapIf(map(toDate(hour, {zone:String}), f.events), now_in) AS by_day
FROM
(
    SELECT *, hour >= {from:DateTime('UTC')} AS now_in, actor_kind != 'account' AND actor_id != '' AS person
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND feature_id != ''
) AS f
CROSS JOIN active
LEFT JOIN (SELECT * FROM catalog_features WHERE app_id = {app:String}) AS c ON c.feature_id = f.feature_id
GROUP BY product_id, module_id, feature_id
ORDER BY product_id, module_id, people DESC, feature_id
