-- title: Conservation by hour of receipt
-- definition: accepted = stored + duplicates + rejected + opted out. A difference other than zero means that events are missing or were counted twice. Events ahead are stored and not yet counted.
SELECT hour, accepted, event_rows AS stored, duplicates, rejected_rows AS rejected, opted_out, refused, ahead, difference, stored_difference, rejected_difference
FROM audit_differences
WHERE app_id = {app:String} AND hour >= toStartOfHour(now('UTC')) - INTERVAL 72 HOUR
ORDER BY hour
