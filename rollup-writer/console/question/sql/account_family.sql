-- title: Parents and children of an account
-- definition: Accounts above and below this one today, with the distance in levels.
SELECT relation, account, depth
FROM
(
    SELECT 'parent' AS relation, account_id AS account, depth
    FROM account_subtree WHERE app_id = {app:String} AND member_id = {account:String} AND depth > 0
    UNION ALL
    SELECT 'child', member_id, depth
    FROM account_subtree WHERE app_id = {app:String} AND account_id = {account:String} AND depth > 0
)
ORDER BY relation DESC, depth, account
LIMIT 200
