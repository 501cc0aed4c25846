-- title: Features of an account
-- definition: Every feature of the catalog, with the people of the account who used it and their events in the period and in the one before.
SELECT
    c.product_id AS product_id, c.module_id AS module_id, c.feature_id AS feature_id, c.feature_name AS feature_name, c.kind AS kind,
    u.people AS people, u.uses AS uses, u.uses_before AS uses_before, u.last_day AS last_day, u.by_day AS by_day
FROM (SELECT * FROM catalog_features WHERE app_id = {app:String} AND status != 'planned') AS c
LEFT JOIN
(
    SELECT
        feature_id,
        uniqExactIf((actor_kind, actor_id), now_in AND actor_kind != 'account' AND actor_id != '') AS people,
        sumIf(h.events, now_in) AS uses, sumIf(h.events, NOT now_in) AS uses_before,
        toDate(max(hour), {zone:String}) AS last_day,
        sumMapIf(map(toDate(hour, {zone:String}), h.events), now_in) AS by_day
    FROM
    (
        SELECT *, hour >= {from:DateTime('UTC')} AS now_in
        FROM usage_hourly
        WHERE app_id = {app:String} AND account_id = {account:String} AND feature_id != '' AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
    ) AS h
    GROUP BY feature_id
) AS u ON u.feature_id = c.feature_id
ORDER BY uses DESC, uses_before DESC, product_id, module_id, feature_id
