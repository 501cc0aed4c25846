-- title: Lifecycle of people
-- definition: New: first usage ever lies in the period. Returning: active in the period and in the one before. Resurrected: active in the period, not in the one before, but earlier. Dormant: active in the period before and not in this one.
SELECT
    countIf(in_now AND first >= {from:DateTime('UTC')}) AS new,
    countIf(in_now AND in_before) AS returning,
    countIf(in_now AND NOT in_before AND first < {before:DateTime('UTC')}) AS resurrected,
    countIf(in_before AND NOT in_now) AS dormant
FROM
(
    SELECT
        actor_kind, actor_id, min(hour) AS first,
        max(hour >= {from:DateTime('UTC')}) AS in_now,
        max(hour >= {before:DateTime('UTC')} AND hour < {from:DateTime('UTC')}) AS in_before
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour < {to:DateTime('UTC')} AND actor_kind != 'account' AND actor_id != ''
    GROUP BY actor_kind, actor_id
)
