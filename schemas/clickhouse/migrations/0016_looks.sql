-- Who looked at whom in the console, from the topic uptake.looks.v1: the writers copy it.
-- Rows of one record are replaced when parts merge, so that any number of copies is one.

{{.CreateTable "looks"}}
(
    `app_id` LowCardinality(String),
    `looked_at` DateTime64(3, 'UTC'),
    `viewer` String COMMENT 'Name from the sign-in',
    `person_id` String COMMENT 'User or visitor; empty: the people of account_id, or an erased person',
    `account_id` String,
    `written_at` DateTime64(3, 'UTC'),
    `log_topic_id` LowCardinality(String),
    `log_offset` Int64
)
ENGINE = {{.ReplacingMergeTree "written_at"}}
ORDER BY (app_id, looked_at, log_topic_id, log_offset)
TTL toDateTime(looked_at) + INTERVAL 400 DAY
COMMENT 'Who looked at whom';

{{.CreateDistributed "looks"}};
