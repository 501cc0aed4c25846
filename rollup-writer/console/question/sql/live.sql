-- title: Events as they arrive
-- definition: What became visible since the given instant of receipt, newest first, with what it was counted for on arrival.
-- people: hidden
SELECT received_at, event_time, kind, event, message_id, actor_kind, actor_id, account_id, account_source, feature_id, protocol, library, flags, conflicts,
    user_id, anonymous_id, toJSONString(properties) AS properties, toJSONString(traits) AS traits
FROM events
WHERE app_id = {app:String} AND received_at > fromUnixTimestamp64Micro({since:Int64}, 'UTC') AND event_time >= now() - INTERVAL 400 DAY
    AND ({q:String} = '' OR message_id = {q:String} OR actor_id = {q:String} OR user_id = {q:String} OR anonymous_id = {q:String} OR account_id = {q:String} OR event = {q:String})
ORDER BY received_at DESC
LIMIT 60
