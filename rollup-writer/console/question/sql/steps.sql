-- title: Features and events that can be steps
-- definition: Features, and events without a feature as event:NAME, that occurred in the period, the most frequent first.
SELECT if(feature_id = '', concat('event:', event), feature_id) AS step, sum(events) AS uses
FROM usage_hourly
WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')} AND (feature_id != '' OR event != '')
GROUP BY step
ORDER BY uses DESC, step
LIMIT 300
