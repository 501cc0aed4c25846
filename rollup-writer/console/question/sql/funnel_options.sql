-- title: Funnel with options
-- definition: As the funnel, with a choice of order: ordered (other events may lie between), strict (none may) or any (so many different steps within one window, in any order). An event of "without" ends a try: what was done before it does not count for what comes after it. All as events count today.
SELECT value, step, step_name, reached, conversion_from_first, conversion_from_previous, median_seconds_from_previous, p90_seconds_from_previous
FROM funnel_options(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, steps = {steps:Array(String)}, window = {window:UInt64}, unit = {unit:String}, by = {by:String}, ordering = {ordering:String}, without = {without:Array(String)})
WHERE app_id = {app:String}
ORDER BY value, step
LIMIT 1000
