{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Id of the annotation',
    `at` DateTime64(3, 'UTC') COMMENT 'When it happened; for a whole day the start of that day in UTC',
    `whole_day` UInt8 COMMENT '1: it is about the day that at names, in whichever time zone days are looked at',
    `category` LowCardinality(String) COMMENT 'release, campaign, remap, incident or other',
    `text` String COMMENT 'What happened',
    `author` String COMMENT 'Who wrote it; empty: nobody was signed in',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was last changed'
)
{{.Definer}}
COMMENT 'What happened on a day or at an instant, as people noted it: the marks on the time axes of the console'
AS
SELECT app_id, id, parseDateTime64BestEffortOrZero(JSONExtractString(value, 'annotation', 'at'), 3, 'UTC') AS at, toUInt8(JSONExtractBool(value, 'annotation', 'whole_day')) AS whole_day,
    JSONExtractString(value, 'annotation', 'category') AS category, JSONExtractString(value, 'annotation', 'text') AS text, author, written_at
FROM ({{template "newest_notes" .}})
WHERE kind = 'annotation'
ORDER BY app_id, at, id
