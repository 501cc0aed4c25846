-- title: Latest events of an account
-- definition: Events that named the account or were counted for it on arrival, newest first. Later corrections change the totals, not this list.
-- people: columns actor_id
SELECT event_time, kind, event, feature_id, actor_kind, actor_id, role, protocol, message_id
FROM events
WHERE app_id = {app:String} AND account_id = {account:String} AND event_time >= {from:DateTime('UTC')} AND event_time < {to:DateTime('UTC')} + INTERVAL 1 DAY
ORDER BY event_time DESC, source_partition, source_offset DESC
LIMIT 100
