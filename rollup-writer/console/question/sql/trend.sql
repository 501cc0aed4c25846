-- title: Active people and accounts by a dimension
-- definition: Who was active in each period of days, by product, module, feature, role, or a trait of account or user. What counts as activity, and who is left out, is configured per app. Somebody may be active under several values.
SELECT period_start AS day, value, active_people AS people, active_accounts AS accounts, events
FROM active_users_by(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, period = {grain:String}, by = {by:String})
WHERE app_id = {app:String}
ORDER BY day, people DESC, value
LIMIT 10000
