-- Events that were accepted and cannot be used, with their original bytes, and
-- which of them were sent again.

{{.CreateTable "rejected_events"}}
(
    `app_id` LowCardinality(String) COMMENT 'App of the write key',
    `stage` LowCardinality(String) COMMENT 'Which service rejected it: gateway or enricher',
    `code` LowCardinality(String) COMMENT 'Reason code, as in replies of the gateway',
    `field` String COMMENT 'Path of the invalid field; empty: the event as a whole',
    `detail` String COMMENT 'The invalid value, and the setting that bounds it' CODEC(ZSTD(1)),
    `message_id` String COMMENT 'Message id; empty: the event had none',
    `protocol` LowCardinality(String) COMMENT 'Protocol of the call: segment, posthog, moesif, ...',
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received it' CODEC(Delta, ZSTD(1)),
    `rejected_at` DateTime64(6, 'UTC') COMMENT 'When it was rejected' CODEC(Delta, ZSTD(1)),
    `raw_partition` Int64 COMMENT 'Partition of the raw record; -1: rejected by the gateway',
    `raw_offset` Int64 COMMENT 'Offset of the raw record; -1: rejected by the gateway',
    `original` String COMMENT 'The bytes as received: the JSON of the one event, or for stage enricher the raw record' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the rejected topic that the row came from',
    `source_partition` Int32 COMMENT 'Partition of that topic',
    `source_offset` Int64 COMMENT 'Offset in that partition' CODEC(Delta, ZSTD(1))
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, code, received_at)
SETTINGS {{.Window}}
COMMENT 'One row for each event that could not be used, with the reason and the original bytes';

{{.CreateDistributed "rejected_events" "One row for each event that could not be used, with the reason and the original bytes"}};

-- What `rollup-writer replay-rejected` sent again. It holds no message, so that an
-- erase of rejected_events leaves nothing of a person here.
{{.CreateTable "replayed_events"}}
(
    `app_id` LowCardinality(String),
    `replayed_at` DateTime64(3, 'UTC'),
    `sent_to` LowCardinality(String) COMMENT 'raw or gateway',
    `changed` String COMMENT 'JSON text: the patch' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the rejected topic, of the rejected event',
    `source_partition` Int32,
    `source_offset` Int64
)
ENGINE = {{.ReplacingMergeTree "replayed_at"}}
ORDER BY (app_id, source_topic_id, source_partition, source_offset)
COMMENT 'Rejected events that were repaired and sent again';

{{.CreateDistributed "replayed_events"}};
