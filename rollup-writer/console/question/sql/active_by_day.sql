-- title: Active people and accounts by day
-- definition: A person or account is active on a day with at least one usage event (track, page, screen or API call) on it, in the chosen time zone. A visitor who was later recognised counts as that user.
SELECT
    toDate(hour, {zone:String}) AS day,
    uniqExactIf((actor_kind, actor_id), actor_kind != 'account' AND actor_id != '') AS people,
    uniqExactIf(account_id, account_id != '') AS accounts,
    sum(u.events) AS events
FROM usage_hourly AS u
WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY day
ORDER BY day WITH FILL FROM toDate({from:DateTime('UTC')}, {zone:String}) TO toDate({to:DateTime('UTC')} - INTERVAL 1 SECOND, {zone:String}) + 1
