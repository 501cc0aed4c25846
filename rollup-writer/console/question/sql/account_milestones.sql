-- title: Milestones of an account
-- definition: What the account has reached, in which UTC hour, and what is still open, of the milestones that are defined for accounts.
SELECT description AS milestone, if(reached, 'reached', 'open') AS state, done, times AS needed, reached_hour
FROM milestones(app = {app:String})
WHERE app_id = {app:String} AND level = 'account' AND subject_id = {account:String}
ORDER BY reached_hour IS NULL, reached_hour, milestone_id
LIMIT 100
