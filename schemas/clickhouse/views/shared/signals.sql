{{define "segment_stays"}}-- Stays of subjects in segments, as last said: without what was retracted.
SELECT app_id, any(signal) AS segment_id, argMin(version, order) AS version, any(level) AS level, any(subject) AS subject_id,
    argMax(state, order) AS state, argMax(valid_from, order) AS entered_at, argMax(tuple(valid_to), order).1 AS left_at
FROM (SELECT *, (written_at, log_offset) AS order FROM {{.Table "signal_log"}} FINAL WHERE signal_use = 'segment' AND state != 'acknowledged')
GROUP BY app_id, alert_id
HAVING state != 'retracted'{{end}}
