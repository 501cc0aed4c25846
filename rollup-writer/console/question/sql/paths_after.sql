-- title: What people do after a step
-- definition: The path within the session from the first occurrence of the step on, at most four steps, repeats of a step counted once. Most frequent first.
SELECT path, sessions, people
FROM paths_after(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, step = {step:String}, length = 4)
WHERE app_id = {app:String}
ORDER BY sessions DESC, path
LIMIT 30
