-- title: Who looked at whom
-- definition: Which page of a person, or of an account with its people, was opened by whom, the newest first. A page that is opened again within ten minutes is recorded once. An erased person is not named.
-- people: hidden
-- for: admins
SELECT looked_at, viewer, person_id, account_id
FROM who_looked
WHERE app_id = {app:String} AND looked_at >= {from:DateTime('UTC')} AND looked_at < {to:DateTime('UTC')}
    AND ({person:String} = '' OR person_id = {person:String}) AND ({account:String} = '' OR account_id = {account:String})
ORDER BY looked_at DESC, viewer, person_id, account_id
LIMIT 5000
