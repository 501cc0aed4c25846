-- Events, one row each, and the corrections of what they were counted for.
--
-- events is partitioned by the month of receipt, not of the event: a client
-- with a wrong clock could otherwise make hundreds of partitions, and a block
-- that touches k partitions takes k entries of the dedup window.
-- The sort key starts with the day: an account's day is one granule, and a
-- feature's or an app's days are one run. What an insert writes is a compact
-- part: a file per column costs as much as all the rest of the insert.

{{.CreateTable "events"}}
(
    `app_id` LowCardinality(String) COMMENT 'One product in one environment; every other column is per app',
    `kind` LowCardinality(String) COMMENT 'track, page, screen and api_call count as usage; identify, group, alias and metric do not',
    `event` LowCardinality(String) COMMENT 'Event name; for page and screen the name of the page; for api_call method and route',
    `message_id` String COMMENT 'Unique within the app' CODEC(ZSTD(1)),
    `user_id` String COMMENT 'As the call named it; empty: none',
    `anonymous_id` String COMMENT 'As the call named it; empty: none',
    `previous_id` String COMMENT 'alias only: the id that becomes user_id',
    `linked_user_id` String COMMENT 'User that anonymous_id was linked to when the call named no user; actor_id is that user, or the one it is aliased to',
    `actor_id` String COMMENT 'Who did it when it was counted: a user id, or an anonymous id not yet tied to a user, or empty for the account itself. Later identity links correct the rollups, not this column',
    `actor_kind` LowCardinality(String) COMMENT 'user, anonymous or account',
    `account_id` String COMMENT 'Customer account that it was counted for; empty: none known',
    `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none',
    `parent_account_id` String COMMENT 'group only: the parent account that the call names',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at event_time',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `catalog_version` Int64 COMMENT 'Version of the catalog that mapped it' CODEC(Delta, ZSTD(1)),
    `event_time` DateTime64(6, 'UTC') COMMENT 'The instant it counts at: the client timestamp, corrected and bounded as flags says' CODEC(Delta, ZSTD(1)),
    `timestamp` Nullable(DateTime64(6, 'UTC')) COMMENT 'Client timestamp as sent' CODEC(Delta, ZSTD(1)),
    `sent_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'When the client sent it, by its clock' CODEC(Delta, ZSTD(1)),
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway took it' CODEC(Delta, ZSTD(1)),
    `quantity` Int64 COMMENT 'How many actions it stands for' CODEC(T64, ZSTD(1)),
    `properties` JSON(max_dynamic_paths = 256) COMMENT 'Normalized: properties.key reads one, typed as first seen',
    `traits` JSON(max_dynamic_paths = 64) COMMENT 'Of identify and group calls',
    `context` String COMMENT 'JSON text as sent: JSONExtract reads it' CODEC(ZSTD(1)),
    `conflicts` String COMMENT 'JSON text: key path to original value where its type does not fit the key; empty: none' CODEC(ZSTD(1)),
    `session_id` String COMMENT 'Session id of the client, where it sends one',
    `protocol` LowCardinality(String) COMMENT 'segment, posthog, moesif, ...',
    `library` LowCardinality(String) COMMENT 'name/version of the sending SDK',
    `ip` String COMMENT 'Full, truncated or empty, as the app is set',
    `user_agent` String COMMENT 'Of the request' CODEC(ZSTD(1)),
    `flags` LowCardinality(String) COMMENT 'Comma-separated words that say what was corrected',
    `raw_offset` Int64 COMMENT 'Offset in the raw topic, same partition number' CODEC(Delta, ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the enriched topic that it came from',
    `source_partition` Int32 COMMENT 'Partition of it' CODEC(T64, ZSTD(1)),
    `source_offset` Int64 COMMENT 'Offset in it' CODEC(Delta, ZSTD(1)),
    INDEX `event_time_range` event_time TYPE minmax GRANULARITY 1,
    INDEX `actor` actor_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, toDate(event_time), account_id, feature_id, event_time)
SETTINGS {{.Window}}, min_bytes_for_wide_part = 67108864
COMMENT 'One row per event, as it was when it was counted';

{{.CreateDistributed "events"}};

-- A correction moves rows of usage_hourly from one attribution to another: for
-- each, a row with the sums negated and one with the new attribution.
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
    `corrected_at` DateTime64(3, 'UTC') COMMENT 'Append time of that record'
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (app_id, source_topic_id, source_partition, source_offset)
SETTINGS {{.Window}}
COMMENT 'Signed rows that moved what was counted from one attribution to another';

{{.CreateDistributed "corrections"}};

-- What a control record's correction will insert, written down before any of it
-- is. The rows are found by reading usage_hourly, which the correction changes:
-- a repeat after a crash must not look again but insert the very same blocks.
-- Rows belong to chunks from 1, a chunk is a block, row is the place in it. The
-- row with chunk 0 is written last and says in row how many chunks there are.
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
    `reason` String COMMENT 'Of the row with chunk 0: JSON text that says why, where people are to know'
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (source_topic_id, source_partition, source_offset, chunk, row)
TTL toDateTime(corrected_at) + INTERVAL 60 DAY
SETTINGS {{.Window}}
COMMENT 'What corrections insert, for rollup-writer itself';

{{.CreateDistributed "correction_plans"}};
