-- title: Stickiness
-- definition: Average number of people active on a day of the period, divided by the people active in the period. Days without usage count as zero.
SELECT
    if(people = 0, 0, person_days / days / people) AS stickiness,
    person_days / days AS average_daily_people,
    people, days
FROM
(
    SELECT
        uniqExact(toDate(hour, {zone:String}), actor_kind, actor_id) AS person_days,
        uniqExact(actor_kind, actor_id) AS people,
        dateDiff('day', toDate({from:DateTime('UTC')}, {zone:String}), toDate({to:DateTime('UTC')} - INTERVAL 1 SECOND, {zone:String})) + 1 AS days
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND actor_kind != 'account' AND actor_id != ''
)
