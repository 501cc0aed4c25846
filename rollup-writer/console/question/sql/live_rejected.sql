-- title: Rejected events as they arrive
-- definition: What was rejected since the given instant of receipt, newest first, with the reason.
-- people: hidden
SELECT received_at, stage, code, field, detail, message_id, protocol, substring(original, 1, 4000) AS original
FROM rejected_events
WHERE app_id = {app:String} AND received_at > fromUnixTimestamp64Micro({since:Int64}, 'UTC')
    AND ({q:String} = '' OR message_id = {q:String} OR position(original, {q:String}) > 0)
ORDER BY received_at DESC
LIMIT 60
