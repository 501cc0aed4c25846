-- title: Activity of an account by day
-- definition: People of the account and their events by day, in the chosen time zone.
SELECT
    toDate(hour, {zone:String}) AS day,
    uniqExactIf((actor_kind, actor_id), actor_kind != 'account' AND actor_id != '') AS people,
    sum(u.events) AS events
FROM usage_hourly AS u
WHERE app_id = {app:String} AND account_id = {account:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY day
ORDER BY day WITH FILL FROM toDate({from:DateTime('UTC')}, {zone:String}) TO toDate({to:DateTime('UTC')} - INTERVAL 1 SECOND, {zone:String}) + 1
