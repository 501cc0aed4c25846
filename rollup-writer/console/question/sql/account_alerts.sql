-- title: Alerts of an account
-- definition: Alerts about the account, newest first: state, why it fired, what to do, and who acknowledged it. A retracted alert was made untrue by a correction of history.
SELECT fired_at AS fired, state, title AS alert, reason, playbook AS next_step, acknowledged_by, feedback, note
FROM alerts
WHERE app_id = {app:String} AND level = 'account' AND subject = {account:String}
ORDER BY fired_at DESC
LIMIT 50
