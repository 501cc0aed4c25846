-- title: Traits of an account
-- definition: What group calls last said of the account.
SELECT trait, if(startsWith(value, '"'), JSONExtractString(value), value) AS value, said_at
FROM account_traits
WHERE app_id = {app:String} AND account_id = {account:String} AND trait != ''
ORDER BY trait
