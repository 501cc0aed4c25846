-- What each stage counted, by app and hour of receipt. Signed sums: use
-- sum(value).

{{.CreateTable "audit_counts"}}
(
    `app_id` LowCardinality(String),
    `stage` LowCardinality(String) COMMENT 'gateway, enricher or rollup-writer',
    `counter` LowCardinality(String) COMMENT 'accepted, stored, duplicates, rejected or opted_out',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of received_at',
    `source_partition` Int32,
    `value` Int64 COMMENT 'Events: sum it'
)
ENGINE = {{.SummingMergeTree "value"}}
{{.PartitionByMonth "hour"}}
ORDER BY (app_id, hour, stage, counter, source_partition)
SETTINGS {{.Window}}
COMMENT 'What each stage counted by hour of receipt: use sum(value)';

{{.CreateDistributed "audit_counts"}};
