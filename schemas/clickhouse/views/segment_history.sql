{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `segment_id` LowCardinality(String) COMMENT 'Id of the segment',
    `level` LowCardinality(String) COMMENT 'account or user',
    `subject_id` String COMMENT 'Account or user',
    `entered_at` DateTime64(3, 'UTC') COMMENT 'End of the day in which it entered',
    `left_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'End of the day in which it left; empty: it is in it',
    `version` UInt32 COMMENT 'Version of the definition that it entered under'
)
{{.Definer}}
COMMENT 'Who was in which segment from when to when, as now known: stays that a correction made untrue are left out'
AS
SELECT app_id, segment_id, level, subject_id, entered_at, left_at, version
FROM ({{template "segment_stays" .}})
ORDER BY app_id, segment_id, entered_at, subject_id
