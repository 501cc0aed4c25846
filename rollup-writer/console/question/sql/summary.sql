-- title: Active people and accounts, this period and the one before
-- definition: Distinct people, accounts and the events of the period; the period before has the same length and ends where this one begins.
SELECT
    uniqExactIf((actor_kind, actor_id), now_in AND person) AS people,
    uniqExactIf((actor_kind, actor_id), NOT now_in AND person) AS people_before,
    uniqExactIf(account_id, now_in AND account_id != '') AS accounts,
    uniqExactIf(account_id, NOT now_in AND account_id != '') AS accounts_before,
    uniqExactIf(feature_id, now_in AND feature_id != '') AS features,
    sumIf(u.events, now_in) AS events,
    sumIf(u.events, NOT now_in) AS events_before
FROM
(
    SELECT *, hour >= {from:DateTime('UTC')} AS now_in, actor_kind != 'account' AND actor_id != '' AS person
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
) AS u
