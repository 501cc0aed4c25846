-- What people write down beside the numbers, from the topic uptake.notes.v1: the
-- writers copy it. Versions of one note replace each other when parts merge; people
-- read the views.

{{.CreateTable "notes"}}
(
    `app_id` LowCardinality(String),
    `kind` LowCardinality(String) COMMENT 'annotation',
    `id` String,
    `value` String COMMENT 'The record, JSON',
    `author` String COMMENT 'Who wrote this version',
    `removed` UInt8 COMMENT '1: the note is deleted',
    `version` UInt64 COMMENT 'The highest one counts: offset in the topic, and in the upper 16 bits how many topics there were before it',
    `written_at` DateTime64(3, 'UTC'),
    `log_topic_id` LowCardinality(String),
    `log_offset` Int64
)
ENGINE = {{.ReplacingMergeTree "version"}}
ORDER BY (app_id, kind, id)
COMMENT 'Notes: the newest version of each';

{{.CreateDistributed "notes"}};
