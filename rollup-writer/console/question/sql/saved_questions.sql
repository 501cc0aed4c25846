-- title: Saved questions
-- definition: Questions that people keep under a name, with the boards that they are on. Each is answered as JSON under /api/v1/saved/ID.
SELECT id, name, query, boards, mail, author, written_at
FROM saved_questions
WHERE app_id = {app:String}
ORDER BY lower(name), id
LIMIT 2000
