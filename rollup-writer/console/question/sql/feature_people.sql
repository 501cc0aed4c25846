-- title: People who use a feature
-- definition: The people with the most events of the feature in the period.
-- people: columns actor_id
SELECT actor_kind, actor_id, any(account_id) AS account_id, sum(u.events) AS uses, toDate(max(hour), {zone:String}) AS last_day
FROM usage_hourly AS u
WHERE app_id = {app:String} AND feature_id = {feature:String} AND actor_kind != 'account' AND actor_id != '' AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY actor_kind, actor_id
ORDER BY uses DESC, actor_id
LIMIT 100
