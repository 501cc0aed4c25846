-- title: Features adopted and dropped
-- definition: For each feature, the accounts that used it in the period and not in the one before (adopted), and the other way round (dropped).
SELECT
    feature_id,
    countIf(in_now AND NOT in_before) AS adopted,
    countIf(in_before AND NOT in_now) AS dropped,
    arraySort(groupArrayIf(5)(account_id, in_now AND NOT in_before)) AS adopted_by,
    arraySort(groupArrayIf(5)(account_id, in_before AND NOT in_now)) AS dropped_by
FROM
(
    SELECT feature_id, account_id, max(hour >= {from:DateTime('UTC')}) AS in_now, max(hour < {from:DateTime('UTC')}) AS in_before
    FROM usage_hourly
    WHERE app_id = {app:String} AND hour >= {before:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND feature_id != '' AND account_id != ''
    GROUP BY feature_id, account_id
)
GROUP BY feature_id
HAVING adopted + dropped > 0
ORDER BY adopted + dropped DESC, feature_id
LIMIT 12
