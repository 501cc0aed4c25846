-- title: Funnel
-- definition: How many people or accounts did the steps in this order, each within the window of the first step; other events may lie between. Times are from the step before. With a breakdown, by the value that the dimension had at the first step. All as events count today.
SELECT value, step, step_name, reached, conversion_from_first, conversion_from_previous, median_seconds_from_previous, p90_seconds_from_previous
FROM funnel_by(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, steps = {steps:Array(String)}, window = {window:UInt64}, unit = {unit:String}, by = {by:String})
WHERE app_id = {app:String}
ORDER BY value, step
LIMIT 1000
