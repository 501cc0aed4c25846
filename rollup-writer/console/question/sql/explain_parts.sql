-- title: What a number is made of
-- definition: Events that arrived for the account, person and feature in the period, those that corrections brought from others and took away since, and what is counted now: the sum of the three.
-- people: hidden
SELECT part, sum(n) AS events, sum(q) AS quantity
FROM
(
    SELECT '1 arrived' AS part, toInt64(count()) AS n, toInt64(sum(quantity)) AS q
    FROM events
    WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND event_time >= {from:DateTime('UTC')} AND event_time < {to:DateTime('UTC')}
        AND ({account:String} = '' OR account_id = {account:String}) AND ({person:String} = '' OR actor_id = {person:String}) AND ({feature:String} = '' OR feature_id = {feature:String})
    UNION ALL
    SELECT '2 moved here' AS part, toInt64(events) AS n, toInt64(quantity) AS q
    FROM moves(app = {app:String}, from = toDate({from:DateTime('UTC')}), to = toDate({to:DateTime('UTC')}) + 1)
    WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
        AND ({account:String} = '' OR to_account_id = {account:String}) AND ({person:String} = '' OR to_actor_id = {person:String}) AND ({feature:String} = '' OR to_feature_id = {feature:String})
    UNION ALL
    SELECT '3 moved away' AS part, -toInt64(events) AS n, -toInt64(quantity) AS q
    FROM moves(app = {app:String}, from = toDate({from:DateTime('UTC')}), to = toDate({to:DateTime('UTC')}) + 1)
    WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
        AND ({account:String} = '' OR from_account_id = {account:String}) AND ({person:String} = '' OR from_actor_id = {person:String}) AND ({feature:String} = '' OR from_feature_id = {feature:String})
    UNION ALL
    SELECT '4 counted now' AS part, toInt64(events) AS n, toInt64(quantity) AS q
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
        AND ({account:String} = '' OR account_id = {account:String}) AND ({person:String} = '' OR actor_id = {person:String}) AND ({feature:String} = '' OR feature_id = {feature:String})
)
GROUP BY part
ORDER BY part
LIMIT 4
