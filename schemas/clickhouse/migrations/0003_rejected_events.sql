-- What was accepted and cannot be used, with its original bytes.

{{.CreateTable "rejected_events"}}
(
    `app_id` LowCardinality(String),
    `stage` LowCardinality(String) COMMENT 'gateway or enricher',
    `code` LowCardinality(String) COMMENT 'Reason, as the reply of the gateway names it',
    `field` String COMMENT 'Path of the field at fault',
    `detail` String COMMENT 'The value and the setting that bounds it' CODEC(ZSTD(1)),
    `message_id` String COMMENT 'Empty: it had none',
    `protocol` LowCardinality(String),
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway took it' CODEC(Delta, ZSTD(1)),
    `rejected_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    `raw_partition` Int64 COMMENT 'Partition of the raw record; -1: rejected by the gateway',
    `raw_offset` Int64 COMMENT 'Offset of the raw record; -1: rejected by the gateway',
    `original` String COMMENT 'The bytes as they came: the JSON of the one event, or from the enricher the raw record' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the rejected topic that it came from',
    `source_partition` Int32 COMMENT 'Partition of it',
    `source_offset` Int64 COMMENT 'Offset in it' CODEC(Delta, ZSTD(1))
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, code, received_at)
SETTINGS {{.Window}}
COMMENT 'Events that could not be used, and why';

{{.CreateDistributed "rejected_events"}};
