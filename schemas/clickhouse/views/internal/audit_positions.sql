-- How far each partition of the log is counted: the rows of events and
-- rejected_events up to there must agree with the counts, at any moment.
{{.Create}}
(
    `raw_topic_id` LowCardinality(String) COMMENT 'Id of the raw topic',
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the enriched topic',
    `source_partition` Int32 COMMENT 'Partition of both',
    `raw_first` Int64 COMMENT 'First offset of raw that is counted',
    `raw_next` Int64 COMMENT 'Offset of raw after the last one that is counted',
    `source_offset` Int64 COMMENT 'Offset in enriched of the last record of counts'
)
{{.Definer}}
COMMENT 'From and up to where each partition of the log is counted'
AS
SELECT raw_topic_id, source_topic_id, source_partition, min(raw_first) AS raw_first, max(raw_next) AS raw_next, max(source_offset) AS source_offset
FROM {{.Table "audit_blocks"}}
WHERE raw_topic_id != ''
GROUP BY raw_topic_id, source_topic_id, source_partition
