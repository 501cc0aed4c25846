-- title: Accounts without usage in the period
-- definition: Accounts that were active in the period before and have no usage event in this one, with the day of their last.
SELECT account_id, toDate(max(hour), {zone:String}) AS last_day, sum(u.events) AS events_before
FROM usage_hourly AS u
WHERE app_id = {app:String} AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND account_id != ''
GROUP BY account_id
HAVING max(hour) < {from:DateTime('UTC')}
ORDER BY events_before DESC, account_id
LIMIT 100
