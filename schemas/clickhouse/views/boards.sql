{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Id of the board',
    `name` String COMMENT 'Name of the board',
    `mail` String COMMENT 'Schedule by which it is mailed, JSON; empty: it is not',
    `author` String COMMENT 'Who named it last; empty: nobody was signed in',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was last changed'
)
{{.Definer}}
COMMENT 'Boards of the console: has(boards, id) of saved_questions says what is on one'
AS
SELECT app_id, id, JSONExtractString(value, 'board', 'name') AS name, JSONExtractRaw(value, 'board', 'mail') AS mail, author, written_at
FROM ({{template "newest_notes" .}})
WHERE kind = 'board'
ORDER BY app_id, name, id
