-- title: Events by the value of a metadata key
-- definition: Events of the step (of all, if none is chosen) by the value of a key of their metadata; dots lead into objects. An empty value: the event has no such key.
-- people: hidden
SELECT value, events, people, accounts
FROM metadata_breakdown(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, step = {step:String}, path = {path:String})
WHERE app_id = {app:String}
ORDER BY events DESC, value
LIMIT 200
