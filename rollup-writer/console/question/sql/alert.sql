-- title: An alert
-- definition: One alert as it is now: state, whom it is about, why it fired, what to do, and who acknowledged it.
-- people: rows level=user
SELECT fired_at, state, severity, level, subject, title, reason, owner, playbook, acknowledged_by, feedback
FROM alerts
WHERE app_id = {app:String} AND alert_id = {alert:String}
LIMIT 1
