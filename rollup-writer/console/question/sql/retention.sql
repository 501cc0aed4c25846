-- title: Retention of people by week
-- definition: People grouped by the ISO week of their first usage. Each following week shows how many of them were active in it. The current week is not over.
WITH weeks AS
(
    SELECT DISTINCT actor_kind, actor_id, toMonday(toDate(hour, {zone:String})) AS week
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour < {to:DateTime('UTC')} AND actor_kind != 'account' AND actor_id != ''
        AND ({feature:String} = '' OR feature_id = {feature:String})
),
cohorts AS (SELECT actor_kind, actor_id, min(week) AS cohort FROM weeks GROUP BY actor_kind, actor_id)
SELECT cohort, toUInt32(dateDiff('week', cohort, week)) AS week_number, count() AS people
FROM weeks INNER JOIN cohorts USING (actor_kind, actor_id)
WHERE cohort > toMonday(toDate({to:DateTime('UTC')} - INTERVAL 1 SECOND, {zone:String})) - INTERVAL 12 WEEK
GROUP BY cohort, week_number
ORDER BY cohort, week_number
