-- What became of what the gateways acked: accepted = stored + duplicates +
-- rejected + opted_out + in flight, per app and hour of receipt.
--
-- The enrichers' transactions say what they took from raw and what they did with
-- each record; a block of enriched that holds such counts is a row here for each
-- app and hour. The row's key is the place in the log, so whatever is written
-- again replaces itself, with or without its token. All rows of a block have the
-- same counted_at: they expire together, also those of an event that was sent
-- again a year after its receipt.
{{.CreateTable "audit_blocks"}}
(
    `app_id` LowCardinality(String),
    `hour` DateTime('UTC') COMMENT 'Start of the hour of received_at',
    `accepted` Int64 COMMENT 'Records that enrichers took from raw: each is in one of the next four' CODEC(T64, ZSTD(1)),
    `stored` Int64 COMMENT 'Passed on to be stored in events' CODEC(T64, ZSTD(1)),
    `duplicates` Int64 COMMENT 'Dropped: the message id was processed before' CODEC(T64, ZSTD(1)),
    `rejected` Int64 COMMENT 'Passed on to rejected_events, stage enricher' CODEC(T64, ZSTD(1)),
    `opted_out` Int64 COMMENT 'Dropped: its user or account opted out' CODEC(T64, ZSTD(1)),
    `raw_topic_id` LowCardinality(String) COMMENT 'Id of the raw topic',
    `raw_first` Int64 COMMENT 'First offset of raw, same partition number, that the block counts' CODEC(Delta, ZSTD(1)),
    `raw_next` Int64 COMMENT 'Offset behind the last' CODEC(Delta, ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the enriched topic',
    `source_partition` Int32,
    `source_offset` Int64 COMMENT 'Offset in enriched of the last record of counts: it stands behind all that it counts' CODEC(Delta, ZSTD(1)),
    `counted_at` DateTime('UTC') COMMENT 'Append time of that record' CODEC(Delta, ZSTD(1))
)
ENGINE = {{.ReplacingMergeTree ""}}
{{.PartitionByMonth "counted_at"}}
ORDER BY (app_id, hour, raw_topic_id, source_topic_id, source_partition, source_offset)
TTL counted_at + INTERVAL 100 DAY
SETTINGS {{.Window}}
COMMENT 'What enrichers counted, by block of the log: see audit_counts and audit_differences';

{{.CreateDistributed "audit_blocks"}};
