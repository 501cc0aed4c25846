-- title: Time to first value
-- definition: Of the people first seen in the period, also as visitors, those who reached a value event, whenever, and the time from their first event of any kind to it.
SELECT people, activated, reached_value, value_rate, median_seconds_to_value, p90_seconds_to_value
FROM time_to_value(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String})
WHERE app_id = {app:String}
