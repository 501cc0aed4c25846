{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `segment_id` LowCardinality(String) COMMENT 'Id of the segment',
    `level` LowCardinality(String) COMMENT 'account or user',
    `subject_id` String COMMENT 'Account or user',
    `since` DateTime64(3, 'UTC') COMMENT 'End of the day in which it entered; at most the horizon of evaluation ago',
    `version` UInt32 COMMENT 'Version of the definition that it entered under'
)
{{.Definer}}
COMMENT 'Who is in which segment now: a filter for other questions, as in account_id IN (SELECT subject_id FROM segment_members WHERE app_id = ... AND segment_id = ...)'
AS
SELECT app_id, segment_id, level, subject_id, entered_at AS since, version
FROM ({{template "segment_stays" .}})
WHERE state = 'entered'
ORDER BY app_id, segment_id, subject_id
