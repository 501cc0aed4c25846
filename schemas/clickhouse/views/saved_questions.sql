{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Id of the question',
    `name` String COMMENT 'Name that it was saved under',
    `query` String COMMENT 'The part of the address under /explore that asks it, without app, period and time zone',
    `boards` Array(String) COMMENT 'Ids of the boards that it is on',
    `mail` String COMMENT 'Schedule by which it is mailed, JSON; empty: it is not',
    `author` String COMMENT 'Who saved it last; empty: nobody was signed in',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was last changed'
)
{{.Definer}}
COMMENT 'Questions of the console that people keep under a name'
AS
SELECT app_id, id, JSONExtractString(value, 'question', 'name') AS name, JSONExtractString(value, 'question', 'query') AS query,
    JSONExtract(value, 'question', 'boards', 'Array(String)') AS boards, JSONExtractRaw(value, 'question', 'mail') AS mail, author, written_at
FROM ({{template "newest_notes" .}})
WHERE kind = 'question'
ORDER BY app_id, name, id
