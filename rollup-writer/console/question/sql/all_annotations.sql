-- title: Annotations
-- definition: What people noted about days and instants, shown on the time axes of charts, the newest first.
SELECT id, at, whole_day, category, text, author, written_at
FROM annotations
WHERE app_id = {app:String}
ORDER BY at DESC, id
LIMIT 5000
