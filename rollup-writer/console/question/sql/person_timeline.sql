-- title: Timeline of a person
-- definition: Events of the person and of the anonymous ids that are linked to it today, newest first.
-- people: hidden
SELECT event_time, kind, event, feature_id, account_id, role, protocol, actor_id, anonymous_id, message_id
FROM events
WHERE app_id = {app:String}
    AND (actor_id = {person:String} OR user_id = {person:String} OR actor_id IN
        (SELECT id FROM identities WHERE app_id = {app:String} AND user_id = {person:String} AND in_force))
ORDER BY event_time DESC, source_partition, source_offset DESC
LIMIT 200
