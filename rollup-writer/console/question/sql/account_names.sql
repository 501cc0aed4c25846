-- title: Names of accounts
-- definition: The trait name that group calls last gave each account.
SELECT account_id, traits['name'] AS name
FROM accounts
WHERE app_id = {app:String} AND traits['name'] != ''
ORDER BY account_id
LIMIT 10000
