-- title: What people do before a step
-- definition: The path within the session up to the first occurrence of the step, at most four steps, repeats of a step counted once. Most frequent first.
SELECT path, sessions, people
FROM paths_before(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, step = {step:String}, length = 4)
WHERE app_id = {app:String}
ORDER BY sessions DESC, path
LIMIT 30
