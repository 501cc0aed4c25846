-- Events, one row each, and the corrections of what they were counted for.
--
-- events is partitioned by the month of receipt, not of the event: a client with
-- a wrong clock could otherwise make hundreds of partitions, and a block that
-- touches k partitions takes k entries of the dedup window.
-- The sort key starts with the day: an account's day is one granule, and the days
-- of a feature or of an app are contiguous. Inserts write compact parts: a file
-- for each column costs as much as the rest of the insert.

{{.CreateTable "events"}}
(
    `app_id` LowCardinality(String) COMMENT 'One product in one environment; every other column is per app',
    `kind` LowCardinality(String) COMMENT 'track, page, screen and api_call count as usage; identify, group, alias and metric do not',
    `event` LowCardinality(String) COMMENT 'Event name; for page and screen the name of the page; for api_call method and route',
    `message_id` String COMMENT 'Unique within the app' CODEC(ZSTD(1)),
    `user_id` String COMMENT 'User id as the call named it; empty: none',
    `anonymous_id` String COMMENT 'Anonymous id as the call named it; empty: none',
    `previous_id` String COMMENT 'alias only: the id that becomes user_id',
    `linked_user_id` String COMMENT 'User that anonymous_id was linked to, as counted on arrival, when the call named no user; actor_id is that user, or the one it is aliased to',
    `actor_id` String COMMENT 'Who did it, as counted on arrival: a user id, or an anonymous id that was not linked to a user, or empty for the account itself. Later links and corrections change the rollups, not this column',
    `actor_kind` LowCardinality(String) COMMENT 'user, anonymous or account, as counted on arrival',
    `account_id` String COMMENT 'Customer account, as counted on arrival; empty: none was known',
    `account_source` LowCardinality(String) COMMENT 'How account_id was found, as counted on arrival: event, membership or none',
    `parent_account_id` String COMMENT 'group only: the parent account that the call names',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at event_time, as counted on arrival',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog, as counted on arrival; empty: it matched none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature, as counted on arrival',
    `product_id` LowCardinality(String) COMMENT 'Product of the module, as counted on arrival',
    `catalog_version` Int64 COMMENT 'Version of the catalog that mapped the event' CODEC(Delta, ZSTD(1)),
    `event_time` DateTime64(6, 'UTC') COMMENT 'Instant that the event counts at: the client timestamp, corrected and bounded as flags says' CODEC(Delta, ZSTD(1)),
    `timestamp` Nullable(DateTime64(6, 'UTC')) COMMENT 'Timestamp of the event as the client sent it' CODEC(Delta, ZSTD(1)),
    `sent_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'When the client sent the call, by its own clock' CODEC(Delta, ZSTD(1)),
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received it' CODEC(Delta, ZSTD(1)),
    `quantity` Int64 COMMENT 'How many actions the event stands for' CODEC(T64, ZSTD(1)),
    `properties` JSON(max_dynamic_paths = 256) COMMENT 'Normalized properties: properties.key reads one of them, in the type first seen for the key',
    `traits` JSON(max_dynamic_paths = 64) COMMENT 'Traits of identify and group calls',
    `context` String COMMENT 'JSON text as sent; read it with JSONExtract functions' CODEC(ZSTD(1)),
    `conflicts` String COMMENT 'JSON text: key path to original value where its type does not fit the key; empty: none' CODEC(ZSTD(1)),
    `session_id` String COMMENT 'Session id of the client; empty: it sends none',
    `protocol` LowCardinality(String) COMMENT 'Protocol of the call: segment, posthog, moesif, ...',
    `library` LowCardinality(String) COMMENT 'name/version of the sending SDK',
    `ip` String COMMENT 'IP address of the client: full, truncated or empty, as the app is configured',
    `user_agent` String COMMENT 'User agent of the request' CODEC(ZSTD(1)),
    `flags` LowCardinality(String) COMMENT 'Comma-separated words for what the enricher corrected',
    `raw_offset` Int64 COMMENT 'Offset in the raw topic, same partition number' CODEC(Delta, ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the enriched topic that the event came from',
    `source_partition` Int32 COMMENT 'Partition of that topic' CODEC(T64, ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset in that partition' CODEC(Delta, ZSTD(1)),
    `metric` String COMMENT 'metric calls only: JSON text of the numbers that it reports; empty: none that could be read' CODEC(ZSTD(1)),
    INDEX `event_time_range` event_time TYPE minmax GRANULARITY 1,
    INDEX `actor` actor_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, toDate(event_time), account_id, feature_id, event_time)
SETTINGS {{.Window}}, min_bytes_for_wide_part = 67108864
COMMENT 'One row for each event, with its attribution as counted on arrival';

{{.CreateDistributed "events" "One row for each event, with its attribution as counted on arrival"}};

-- A correction moves rows of usage_hourly from one attribution to another: for
-- each, row 2k-1 of the block has the sums negated and row 2k the new attribution;
-- source_offset is that of the control record that moved it. Kept in the order of
-- the log they tell of each event for whom it counts today: it takes each move
-- behind its own offset that names the attribution which it has by then.
{{.CreateTable "corrections"}}
(
    `app_id` LowCardinality(String),
    `account_id` String,
    `account_source` LowCardinality(String),
    `actor_id` String,
    `actor_kind` LowCardinality(String),
    `user_id` String,
    `anonymous_id` String,
    `feature_id` LowCardinality(String),
    `module_id` LowCardinality(String),
    `product_id` LowCardinality(String),
    `role` LowCardinality(String),
    `event` LowCardinality(String),
    `hour` DateTime('UTC'),
    `source_partition` Int32 COMMENT 'Partition whose rows are corrected, and of the control record',
    `events` Int64 COMMENT 'Negative: no longer counted here',
    `quantity` Int64,
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the enriched topic',
    `source_offset` Int64 COMMENT 'Offset of the control record that ordered it',
    `control_id` String COMMENT 'Id of that record',
    `control_kind` LowCardinality(String) COMMENT 'What it orders: move',
    `corrected_at` DateTime64(3, 'UTC') COMMENT 'Append time of that record',
    `block` Int64 COMMENT 'Offset with which the block of the log begins that the control record stands in' CODEC(Delta, ZSTD(1)),
    `row` UInt32 COMMENT 'Place in the block: row 2k-1 is the old attribution of a move, row 2k the new one' CODEC(Delta, ZSTD(1))
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (app_id, source_topic_id, source_partition, source_offset)
SETTINGS {{.Window}}
COMMENT 'Signed rows that moved what was counted from one attribution to another';

{{.CreateDistributed "corrections"}};

-- The rows that the corrections of a block of the log insert, stored before any of
-- them is inserted. They are found by reading usage_hourly, which the corrections
-- change: a repeat after a crash must not read it again but insert the very same
-- rows. Chunks are numbered from 1, each is inserted as one block, and row is the
-- place in the block of the log. The head, with chunk 0 and block_end, is written
-- last: it says what each chunk holds.
{{.CreateTable "correction_plans"}}
(
    `app_id` LowCardinality(String),
    `account_id` String,
    `account_source` LowCardinality(String),
    `actor_id` String,
    `actor_kind` LowCardinality(String),
    `user_id` String,
    `anonymous_id` String,
    `feature_id` LowCardinality(String),
    `module_id` LowCardinality(String),
    `product_id` LowCardinality(String),
    `role` LowCardinality(String),
    `event` LowCardinality(String),
    `hour` DateTime('UTC'),
    `source_partition` Int32,
    `events` Int64,
    `quantity` Int64,
    `source_topic_id` LowCardinality(String),
    `source_offset` Int64 COMMENT 'Offset of the control record',
    `control_id` String,
    `control_kind` LowCardinality(String),
    `corrected_at` DateTime64(3, 'UTC'),
    `chunk` UInt32,
    `row` UInt32,
    `reason` String COMMENT 'Of the row with chunk 0: JSON text that says why, where people are to know',
    `block` Int64 COMMENT 'Offset with which the block begins',
    `plan` UInt64 COMMENT 'Number of the attempt that wrote the row: the head says which one counts',
    `block_end` Int64 COMMENT 'Of the head of a plan, which is in chunk 0: offset behind the block',
    `chunk_rows` Array(UInt32) COMMENT 'Of the head: rows of each chunk',
    `chunk_events` Array(Int64) COMMENT 'Of the head: events that each chunk moves',
    `chunk_quantity` Array(Int64) COMMENT 'Of the head: their quantity'
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (source_topic_id, source_partition, source_offset, chunk, row)
TTL toDateTime(corrected_at) + INTERVAL 60 DAY
SETTINGS {{.Window}}
COMMENT 'What corrections insert, for rollup-writer itself';

{{.CreateDistributed "correction_plans"}};
