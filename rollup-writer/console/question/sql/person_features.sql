-- title: Features of a person
-- definition: Usage of the person by feature and account in the period, as it counts today.
-- people: hidden
SELECT feature_id, account_id, any(role) AS role, sum(u.events) AS uses, toDate(max(hour), {zone:String}) AS last_day,
    sumMap(map(toDate(hour, {zone:String}), u.events)) AS by_day
FROM usage_hourly AS u
WHERE app_id = {app:String} AND actor_id = {person:String} AND actor_kind != 'account' AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY feature_id, account_id
ORDER BY uses DESC, feature_id, account_id
LIMIT 200
