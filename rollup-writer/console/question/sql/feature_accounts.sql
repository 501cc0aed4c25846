-- title: Accounts that use a feature
-- definition: Accounts with at least one event of the feature in the period or in the one before, with the people who used it.
SELECT
    account_id,
    uniqExactIf((actor_kind, actor_id), now_in AND actor_kind != 'account' AND actor_id != '') AS people,
    sumIf(u.events, now_in) AS uses,
    sumIf(u.events, NOT now_in) AS uses_before,
    toDate(max(hour), {zone:String}) AS last_day,
    sumMapIf(map(toDate(hour, {zone:String}), u.events), now_in) AS by_day
FROM
(
    SELECT *, hour >= {from:DateTime('UTC')} AS now_in
    FROM usage_hourly
    WHERE app_id = {app:String} AND feature_id = {feature:String} AND account_id != '' AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
) AS u
GROUP BY account_id
ORDER BY uses DESC, uses_before DESC, account_id
LIMIT 500
