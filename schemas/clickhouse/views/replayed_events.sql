{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `replayed_at` DateTime64(3, 'UTC') COMMENT 'When it was sent again last',
    `sent_to` LowCardinality(String) COMMENT 'Where to: raw or gateway',
    `changed` String COMMENT 'JSON text of the changes',
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the rejected topic, as in rejected_events',
    `source_partition` Int32 COMMENT 'Partition of that topic',
    `source_offset` Int64 COMMENT 'Offset in that partition'
)
{{.Definer}}
COMMENT 'Rejected events that `rollup-writer replay-rejected` repaired and sent again'
AS
SELECT app_id, replayed_at, sent_to, changed, source_topic_id, source_partition, source_offset
FROM {{.Table "replayed_events"}} FINAL
