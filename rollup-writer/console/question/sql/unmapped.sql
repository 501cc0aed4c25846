-- title: Events without a feature
-- definition: Event names that match no feature of the catalog, with their volume.
SELECT event, toUInt64(u.events) AS uses, first_seen, last_seen
FROM unmapped_events AS u
WHERE app_id = {app:String}
ORDER BY uses DESC, event
LIMIT 100
