-- title: Sessions by day
-- definition: A session is the events of a person without a gap longer than the defined one, 30 minutes where none is defined. It belongs to the day on which it starts.
SELECT period_start AS day, sessions, people, sessions_per_person, events_per_session, median_seconds, single_event_rate
FROM session_summary(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String}, period = 'day')
WHERE app_id = {app:String}
ORDER BY day
