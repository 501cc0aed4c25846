-- title: Accounts
-- definition: Usage of each account in the period and in the one before: people, features, events, and the day of the last event. Change compares the events of both periods. Traits are those that the account has today; health is the newest score by the first of the definitions, alerts are those that fire now.
SELECT
    u.account_id AS account_id,
    any(a.traits) AS traits,
    uniqExactIf((actor_kind, actor_id), now_in AND person) AS people,
    uniqExactIf((actor_kind, actor_id), NOT now_in AND person) AS people_before,
    uniqExactIf(feature_id, now_in AND feature_id != '') AS features,
    uniqExactIf(feature_id, NOT now_in AND feature_id != '') AS features_before,
    sumIf(u.events, now_in) AS uses,
    sumIf(u.events, NOT now_in) AS uses_before,
    toDate(max(hour), {zone:String}) AS last_day,
    any(h.score) AS health,
    any(h.band) AS band,
    any(f.alerts) AS alerts,
    sumMapIf(map(toDate(hour, {zone:String}), u.events), now_in) AS by_day
FROM
(
    SELECT *, hour >= {from:DateTime('UTC')} AS now_in, actor_kind != 'account' AND actor_id != '' AS person
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND account_id != ''
) AS u
LEFT JOIN (SELECT account_id, traits FROM accounts WHERE app_id = {app:String}) AS a ON a.account_id = u.account_id
LEFT JOIN (SELECT account_id, argMin(toNullable(score), health_id) AS score, argMin(toString(band), health_id) AS band FROM account_health WHERE app_id = {app:String} GROUP BY account_id) AS h ON h.account_id = u.account_id
LEFT JOIN (SELECT subject AS account_id, count() AS alerts FROM alerts WHERE app_id = {app:String} AND level = 'account' AND state = 'firing' GROUP BY subject) AS f ON f.account_id = u.account_id
GROUP BY account_id
ORDER BY uses - uses_before, account_id
LIMIT 2000
