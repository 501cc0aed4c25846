-- title: Ids of a person
-- definition: Anonymous ids and other user ids that count for this person today, since when, and when that was last said. Undo a wrong one with enricher identity unlink.
-- people: hidden
SELECT id_kind, id, since, last_said, in_force
FROM identities
WHERE app_id = {app:String} AND user_id = {person:String}
ORDER BY in_force DESC, since, id
LIMIT 200
