-- title: Metadata conflicts
-- definition: Keys whose values did not fit the type first seen. The original values are kept beside the events, under conflicts.
-- people: hidden
SELECT path, toUInt64(c.events) AS conflicts, first_seen, last_seen, last_value, event_names
FROM metadata_conflicts AS c
WHERE app_id = {app:String}
ORDER BY conflicts DESC, path
LIMIT 100
