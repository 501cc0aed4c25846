-- title: Annotations in the period
-- definition: What people noted about the days and instants of the period: releases, campaigns, remaps, incidents. A whole day is that day in whichever time zone the page has.
SELECT id, at, whole_day, category, text, author, written_at
FROM annotations
WHERE app_id = {app:String} AND if(whole_day = 1, toDate(at, 'UTC') >= {first:Date} AND toDate(at, 'UTC') < {end:Date},
    at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')})
ORDER BY at, id
LIMIT 500
