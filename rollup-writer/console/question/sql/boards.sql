-- title: Boards
-- definition: Boards, which show saved questions together.
SELECT id, name, mail, author, written_at
FROM boards
WHERE app_id = {app:String}
ORDER BY lower(name), id
LIMIT 500
