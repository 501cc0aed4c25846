-- title: Newest visible event
-- definition: When the gateway received the newest event that is visible in ClickHouse, and how many came in the last hour.
SELECT max(received_at) AS newest, countIf(received_at > now() - INTERVAL 1 HOUR) AS last_hour, count() AS last_days
FROM events
WHERE app_id = {app:String} AND received_at > now() - INTERVAL 7 DAY
