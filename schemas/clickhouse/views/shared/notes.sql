{{define "newest_notes"}}-- The newest version of each note that is not deleted. Several shards may have versions of one.
SELECT app_id, kind, id, argMax(value, version) AS value, argMax(author, version) AS author, argMax(written_at, version) AS written_at
FROM {{.Table "notes"}}
GROUP BY app_id, kind, id
HAVING argMax(removed, version) = 0{{end}}
