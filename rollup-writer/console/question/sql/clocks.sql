-- title: Clocks by library
-- definition: Events of the period whose client clock was corrected or bounded, by sending library.
SELECT if(library = '', protocol, library) AS sender, count() AS total, countIf(flags != '') AS corrected, topKIf(3)(flags, flags != '') AS what,
    toFloat64(medianIf(dateDiff('second', timestamp, received_at), isNotNull(timestamp))) AS median_age_seconds
FROM events
WHERE app_id = {app:String} AND event_time >= {from:DateTime('UTC')} AND event_time < {to:DateTime('UTC')} + INTERVAL 1 HOUR
GROUP BY sender
HAVING corrected > 0
ORDER BY corrected DESC, sender
LIMIT 50
