-- title: Rejected events by reason
-- definition: Events of the period that could not be used, by stage, reason and field, with the newest detail.
-- people: hidden
SELECT stage, code, field, count() AS rejected, max(received_at) AS last_seen, argMax(detail, received_at) AS last_detail, argMax(protocol, received_at) AS protocol
FROM rejected_events
WHERE app_id = {app:String} AND received_at >= {from:DateTime('UTC')} AND received_at < {to:DateTime('UTC')} + INTERVAL 1 HOUR
GROUP BY stage, code, field
ORDER BY rejected DESC, code, field
LIMIT 100
