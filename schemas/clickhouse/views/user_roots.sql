-- Whom a user counts for after all its aliases. In a cycle of aliases, the one first
-- mentioned most recently is ignored, as in the enricher.
{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'A user id that is an alias',
    `root_id` String COMMENT 'User that its events count for'
)
{{.Definer}}
COMMENT 'Aliased users and the user that each counts for after all aliases'
AS
WITH RECURSIVE
    aliases AS (SELECT app_id, id, user_id, since FROM {{.View "identities"}} WHERE id_kind = 'user' AND in_force),
    walk AS
    (
        SELECT app_id, id AS user_id, [id] AS path, [since] AS said, a.user_id AS next
        FROM aliases AS a
        UNION ALL
        SELECT w.app_id, w.user_id, arrayPushBack(w.path, w.next), arrayPushBack(w.said, a.since), a.user_id
        FROM walk AS w
        LEFT JOIN aliases AS a ON a.app_id = w.app_id AND a.id = w.next
        WHERE w.next != '' AND NOT has(w.path, w.next) AND length(w.path) < 100
    )
SELECT
    app_id, user_id,
    if(next = '', path[-1],
        tupleElement(arraySort(arraySlice(arrayZip(said, path), indexOf(path, next)))[-1], 2)) AS root_id
FROM walk
WHERE next = '' OR has(path, next)
