-- title: Alerts
-- definition: All alerts, those that fire first and the newest at the top: state, why it fired, what to do, who acknowledged it and what they thought of it. A retracted alert was made untrue by a correction of history.
-- people: rows level=user
SELECT alert_id, fired_at, state, severity, level, subject, title, reason, owner, playbook, acknowledged_by, feedback
FROM alerts
WHERE app_id = {app:String}
ORDER BY state = 'firing' DESC, fired_at DESC, alert_id
LIMIT 500
