-- 0001_events

CREATE TABLE IF NOT EXISTS `uptake_internal`.`events_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, toDate(event_time), account_id, feature_id, event_time)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800, min_bytes_for_wide_part = 67108864
COMMENT 'One row for each event, with its attribution as counted on arrival';

CREATE TABLE IF NOT EXISTS `uptake`.`events` ON CLUSTER `main` AS `uptake_internal`.`events_local` ENGINE = Distributed(`main`, `uptake_internal`, `events_local`)
COMMENT 'One row for each event, with its attribution as counted on arrival';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`corrections_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (app_id, source_topic_id, source_partition, source_offset)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Signed rows that moved what was counted from one attribution to another';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`corrections` ON CLUSTER `main` AS `uptake_internal`.`corrections_local` ENGINE = Distributed(`main`, `uptake_internal`, `corrections_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`correction_plans_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (source_topic_id, source_partition, source_offset, chunk, row)
TTL toDateTime(corrected_at) + INTERVAL 60 DAY
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'What corrections insert, for rollup-writer itself';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`correction_plans` ON CLUSTER `main` AS `uptake_internal`.`correction_plans_local` ENGINE = Distributed(`main`, `uptake_internal`, `correction_plans_local`);

-- 0002_usage_rollups

CREATE TABLE IF NOT EXISTS `uptake_internal`.`usage_hourly_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none',
    `actor_id` String COMMENT 'User id, or anonymous id not yet tied to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'user, anonymous or account',
    `user_id` String COMMENT 'User that the event named, or that its anonymous id is linked to, before aliases',
    `anonymous_id` String COMMENT 'Anonymous id of events that named no user',
    `feature_id` LowCardinality(String) COMMENT 'Empty: unmapped, see event',
    `module_id` LowCardinality(String),
    `product_id` LowCardinality(String),
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time',
    `event` LowCardinality(String),
    `hour` DateTime('UTC') COMMENT 'Start of the hour of event_time',
    `source_partition` Int32 COMMENT 'Partition of the log that it was counted from: sum over it',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(hour)
PRIMARY KEY (app_id, actor_id)
ORDER BY (app_id, actor_id, actor_kind, account_id, feature_id, hour, module_id, product_id, role, event, source_partition, account_source, user_id, anonymous_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800, index_granularity = 1024
COMMENT 'Stored rollup: usage by app, account, actor, feature, module, product, role, event name and hour';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`usage_hourly` ON CLUSTER `main` AS `uptake_internal`.`usage_hourly_local` ENGINE = Distributed(`main`, `uptake_internal`, `usage_hourly_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`account_feature_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `feature_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `module_id` LowCardinality(String),
    `product_id` LowCardinality(String),
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
ORDER BY (app_id, account_id, feature_id, day, module_id, product_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Stored rollup: usage of a feature by an account in a day';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`account_feature_daily` ON CLUSTER `main` AS `uptake_internal`.`account_feature_daily_local` ENGINE = Distributed(`main`, `uptake_internal`, `account_feature_daily_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`account_module_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `module_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `product_id` LowCardinality(String),
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
ORDER BY (app_id, account_id, module_id, day, product_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Stored rollup: usage of a module by an account in a day';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`account_module_daily` ON CLUSTER `main` AS `uptake_internal`.`account_module_daily_local` ENGINE = Distributed(`main`, `uptake_internal`, `account_module_daily_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`account_product_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `product_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
ORDER BY (app_id, account_id, product_id, day)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Stored rollup: usage of a product by an account in a day';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`account_product_daily` ON CLUSTER `main` AS `uptake_internal`.`account_product_daily_local` ENGINE = Distributed(`main`, `uptake_internal`, `account_product_daily_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`user_feature_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `actor_id` String COMMENT 'User id, or anonymous id not yet tied to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'user, anonymous or account',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time',
    `feature_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `module_id` LowCardinality(String),
    `product_id` LowCardinality(String),
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
PRIMARY KEY (app_id, account_id, actor_id)
ORDER BY (app_id, account_id, actor_id, actor_kind, feature_id, day, role, module_id, product_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Stored rollup: usage of a feature by a user in a day';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`user_feature_daily` ON CLUSTER `main` AS `uptake_internal`.`user_feature_daily_local` ENGINE = Distributed(`main`, `uptake_internal`, `user_feature_daily_local`);

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`account_feature_daily_view` ON CLUSTER `main` TO `uptake_internal`.`account_feature_daily_local` AS
SELECT app_id, account_id, feature_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake_internal`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`account_module_daily_view` ON CLUSTER `main` TO `uptake_internal`.`account_module_daily_local` AS
SELECT app_id, account_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake_internal`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`account_product_daily_view` ON CLUSTER `main` TO `uptake_internal`.`account_product_daily_local` AS
SELECT app_id, account_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake_internal`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`user_feature_daily_view` ON CLUSTER `main` TO `uptake_internal`.`user_feature_daily_local` AS
SELECT app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake_internal`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`usage_hourly_from_events` ON CLUSTER `main` TO `uptake_internal`.`usage_hourly_local` AS
SELECT
    e.app_id AS app_id, e.account_id AS account_id, e.account_source AS account_source, e.actor_id AS actor_id, e.actor_kind AS actor_kind,
    if(e.user_id != '', e.user_id, e.linked_user_id) AS user_id, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id,
    e.feature_id AS feature_id, e.module_id AS module_id, e.product_id AS product_id, e.role AS role, e.event AS event,
    toStartOfHour(e.event_time) AS hour, e.source_partition AS source_partition, toInt64(1) AS events, e.quantity AS quantity
FROM `uptake_internal`.`events_local` AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call');

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`usage_hourly_from_corrections` ON CLUSTER `main` TO `uptake_internal`.`usage_hourly_local` AS
SELECT
    app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event,
    hour, source_partition, events, quantity
FROM `uptake_internal`.`corrections_local`;

-- 0003_rejected_events

CREATE TABLE IF NOT EXISTS `uptake_internal`.`rejected_events_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, code, received_at)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'One row for each event that could not be used, with the reason and the original bytes';

CREATE TABLE IF NOT EXISTS `uptake`.`rejected_events` ON CLUSTER `main` AS `uptake_internal`.`rejected_events_local` ENGINE = Distributed(`main`, `uptake_internal`, `rejected_events_local`)
COMMENT 'One row for each event that could not be used, with the reason and the original bytes';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`replayed_events_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `replayed_at` DateTime64(3, 'UTC'),
    `sent_to` LowCardinality(String) COMMENT 'raw or gateway',
    `changed` String COMMENT 'JSON text: the patch' CODEC(ZSTD(1)),
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the rejected topic, of the rejected event',
    `source_partition` Int32,
    `source_offset` Int64
)
ENGINE = ReplicatedReplacingMergeTree(replayed_at)
ORDER BY (app_id, source_topic_id, source_partition, source_offset)
COMMENT 'Rejected events that were repaired and sent again';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`replayed_events` ON CLUSTER `main` AS `uptake_internal`.`replayed_events_local` ENGINE = Distributed(`main`, `uptake_internal`, `replayed_events_local`);

-- 0004_catalog

CREATE TABLE IF NOT EXISTS `uptake_internal`.`catalog_features_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `feature_id` String,
    `feature_name` String,
    `module_id` String,
    `module_name` String,
    `product_id` String,
    `product_name` String,
    `owner` String COMMENT 'Team that answers for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64,
    `applied_at` DateTime64(3, 'UTC'),
    `removed` UInt8 COMMENT '1: no longer in the catalog'
)
ENGINE = ReplicatedReplacingMergeTree(catalog_version, removed)
ORDER BY (app_id, feature_id)
COMMENT 'Features, modules and products of the newest catalog of each app';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`catalog_features` ON CLUSTER `main` AS `uptake_internal`.`catalog_features_local` ENGINE = Distributed(`main`, `uptake_internal`, `catalog_features_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`catalog_features_history_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `feature_id` String,
    `feature_name` String,
    `module_id` String,
    `module_name` String,
    `product_id` String,
    `product_name` String,
    `owner` String COMMENT 'Team that answers for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64,
    `applied_at` DateTime64(3, 'UTC'),
    `removed` UInt8 COMMENT '1: this version took it out'
)
ENGINE = ReplicatedReplacingMergeTree(applied_at)
ORDER BY (app_id, feature_id, catalog_version)
COMMENT 'Features of every version of the catalog';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`catalog_features_history` ON CLUSTER `main` AS `uptake_internal`.`catalog_features_history_local` ENGINE = Distributed(`main`, `uptake_internal`, `catalog_features_history_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`catalog_metrics_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `event` String COMMENT 'Name of metric events that report it',
    `metric_id` String,
    `metric_name` String,
    `semantics` LowCardinality(String) COMMENT 'delta, gauge or cumulative',
    `unit` String,
    `owner` String COMMENT 'Team that answers for it',
    `purpose` String,
    `catalog_version` Int64,
    `applied_at` DateTime64(3, 'UTC'),
    `removed` UInt8 COMMENT '1: no longer in the catalog'
)
ENGINE = ReplicatedReplacingMergeTree(catalog_version, removed)
ORDER BY (app_id, event)
COMMENT 'Metrics of the newest catalog of each app by the names of their events';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`catalog_metrics` ON CLUSTER `main` AS `uptake_internal`.`catalog_metrics_local` ENGINE = Distributed(`main`, `uptake_internal`, `catalog_metrics_local`);

-- 0005_audit

CREATE TABLE IF NOT EXISTS `uptake_internal`.`audit_blocks_local` ON CLUSTER `main`
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
ENGINE = ReplicatedReplacingMergeTree
PARTITION BY toYYYYMM(counted_at)
ORDER BY (app_id, hour, raw_topic_id, source_topic_id, source_partition, source_offset)
TTL counted_at + INTERVAL 100 DAY
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'What enrichers counted, by block of the log: see audit_counts and audit_differences';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`audit_blocks` ON CLUSTER `main` AS `uptake_internal`.`audit_blocks_local` ENGINE = Distributed(`main`, `uptake_internal`, `audit_blocks_local`);

-- 0006_identity

CREATE TABLE IF NOT EXISTS `uptake_internal`.`identity_facts_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `fact` LowCardinality(String) COMMENT 'anonymous, alias, membership, parent, user or account',
    `subject` String COMMENT 'Anonymous id; user, before the alias; user; account; user; account',
    `object` String COMMENT 'User; user; account; account; trait; trait (empty: the call itself)',
    `at` DateTime64(6, 'UTC') COMMENT 'Event time, of facts that have a history: memberships and parents',
    `first` SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'Earliest event time of the calls that said so: min it',
    `last` SimpleAggregateFunction(max, Tuple(at DateTime64(6, 'UTC'), value String)) COMMENT 'Latest one, and the role or the JSON text of the trait that it said: max it'
)
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (app_id, fact, subject, object, at)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'What calls said of identity, for the views that are named for it';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`identity_facts` ON CLUSTER `main` AS `uptake_internal`.`identity_facts_local` ENGINE = Distributed(`main`, `uptake_internal`, `identity_facts_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`identity_unlinks_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `id_kind` LowCardinality(String) COMMENT 'What id is: anonymous or user',
    `id` String,
    `user_id` String COMMENT 'User that it does not belong to',
    `until` SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'What was said up to it does not count: max it'
)
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (app_id, id_kind, id, user_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Links that operators undid';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`identity_unlinks` ON CLUSTER `main` AS `uptake_internal`.`identity_unlinks_local` ENGINE = Distributed(`main`, `uptake_internal`, `identity_unlinks_local`);

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`identity_facts_from_events` ON CLUSTER `main` TO `uptake_internal`.`identity_facts_local` AS
WITH ['$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll'] AS operators
SELECT
    e.app_id AS app_id, f.1 AS fact, f.2 AS subject, f.3 AS object,
    if(fact IN ('membership', 'parent') OR position(object, '\0') > 0, e.event_time, toDateTime64(0, 6, 'UTC')) AS at, e.event_time AS first, (e.event_time, f.4) AS last
FROM `uptake_internal`.`events_local` AS e
ARRAY JOIN arrayConcat(
    if(e.user_id != '' AND e.anonymous_id != '', [('anonymous', e.anonymous_id, e.user_id, '')], []),
    if(e.kind = 'alias' AND e.user_id != '' AND e.previous_id NOT IN ('', e.user_id),
        [('anonymous', e.previous_id, e.user_id, ''), ('alias', e.previous_id, e.user_id, '')], []),
    if(e.kind IN ('group', 'identify') AND e.user_id != '' AND e.account_id != '' AND e.account_source = 'event',
        [('membership', e.user_id, e.account_id, toString(e.role))], []),
    if(e.kind = 'group' AND e.account_id != '' AND e.parent_account_id NOT IN ('', e.account_id), [('parent', e.account_id, e.parent_account_id, '')], []),
    if((e.kind = 'identify' AND e.user_id != '') OR (e.kind = 'group' AND e.account_id != ''),
        arrayMap(t -> (if(e.kind = 'group', 'account', 'user'), if(e.kind = 'group', e.account_id, e.user_id), t.1, t.2),
            arrayPushFront(arrayFilter(t -> NOT has(operators, t.1), JSONExtractKeysAndValuesRaw(toJSONString(e.traits))), ('', ''))), []),
    if((e.kind = 'identify' AND e.user_id != '') OR (e.kind = 'group' AND e.account_id != ''),
        arrayMap(t -> (if(e.kind = 'group', 'account', 'user'), if(e.kind = 'group', e.account_id, e.user_id), concat(t.1, '\0', t.2, '\0', e.message_id), t.3),
            arrayFlatten(arrayMap(
                o -> multiIf(
                    startsWith(o.2, '{'), arrayMap(t -> (t.1, o.1, t.2), JSONExtractKeysAndValuesRaw(o.2)),
                    startsWith(o.2, '['), arrayMap(t -> (t, o.1, ''), JSONExtract(o.2, 'Array(String)')),
                    [('', o.1, '')]),
                arrayFilter(t -> has(operators, t.1), JSONExtractKeysAndValuesRaw(toJSONString(e.traits)))))), [])) AS f
WHERE e.kind IN ('identify', 'group', 'alias') OR (e.user_id != '' AND e.anonymous_id != '');

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`identity_unlinks_from_plans` ON CLUSTER `main` TO `uptake_internal`.`identity_unlinks_local` AS
SELECT
    app_id, JSONExtractString(reason, 'id_kind') AS id_kind, JSONExtractString(reason, 'id') AS id, JSONExtractString(reason, 'user_id') AS user_id,
    fromUnixTimestamp64Micro(least(JSONExtractInt(reason, 'until'), 10413791999000000), 'UTC') AS until
FROM `uptake_internal`.`correction_plans_local`
WHERE chunk = 0 AND JSONExtractString(reason, 'kind') = 'unlink';

-- 0007_metrics

CREATE TABLE IF NOT EXISTS `uptake_internal`.`metric_values_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `event` LowCardinality(String) COMMENT 'Name of the metric event',
    `number` LowCardinality(String) COMMENT 'Name of the number within it; empty: its only one',
    `user_id` String COMMENT 'As the call named it',
    `anonymous_id` String COMMENT 'As the call named it',
    `account_id` String COMMENT 'As the call named it',
    `dimensions` String COMMENT 'JSON text, keys sorted',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Of the period that the call names, else event_time',
    `period_end` DateTime64(6, 'UTC'),
    `message_id` String COMMENT 'Of calls that name no period: each stands for itself',
    `last` SimpleAggregateFunction(max, Tuple(
        said_at DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), source_offset Int64,
        value Float64, actor_id String, actor_kind String, account_id String)) COMMENT 'What was said last, and for whom it counts: max it'
)
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (app_id, event, account_id, user_id, anonymous_id, number, dimensions, period_start, period_end, message_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'What metric events said, for metric_points and the views over it';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`metric_values` ON CLUSTER `main` AS `uptake_internal`.`metric_values_local` ENGINE = Distributed(`main`, `uptake_internal`, `metric_values_local`);

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`metric_values_from_events` ON CLUSTER `main` TO `uptake_internal`.`metric_values_local` AS
WITH JSONHas(e.metric, 'period') AS named
SELECT
    e.app_id AS app_id, e.event AS event, n.1 AS number, e.user_id AS user_id, e.anonymous_id AS anonymous_id,
    if(e.account_source = 'event', e.account_id, '') AS account_id, JSONExtractString(e.metric, 'dimensions') AS dimensions,
    if(named, fromUnixTimestamp64Micro(JSONExtractInt(e.metric, 'period', 1), 'UTC'), e.event_time) AS period_start,
    if(named, fromUnixTimestamp64Micro(JSONExtractInt(e.metric, 'period', 2), 'UTC'), e.event_time) AS period_end,
    if(named, '', e.message_id) AS message_id,
    (ifNull(e.timestamp, e.event_time), e.received_at, e.source_offset, n.2, e.actor_id, toString(e.actor_kind), e.account_id) AS last
FROM `uptake_internal`.`events_local` AS e
ARRAY JOIN if(e.metric = '', [], JSONExtractKeysAndValues(e.metric, 'numbers', 'Float64')) AS n
WHERE e.metric != '';

-- 0008_insight

CREATE TABLE IF NOT EXISTS `uptake_internal`.`insight_rules` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App that the definitions are of',
    `version` UInt32 COMMENT 'Counts up with each apply',
    `use` LowCardinality(String) COMMENT 'What the rule is for: version, activity, exclude, signup_page, signup, activation, value, subscription, paid, friction, seats or session_gap',
    `match` LowCardinality(String) COMMENT 'What is matched: feature, module, product, event, user, mail_domain, trait, account, account_trait or role; empty: nothing',
    `key` String COMMENT 'Trait, of rules that match traits',
    `value` String COMMENT 'What it is matched with; of the row with use version the text of the file, of session_gap seconds',
    `applied_by` String COMMENT 'Who applied the version',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When it was applied'
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/all', '{shard}-{replica}')
ORDER BY (app_id, version)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Definitions that views about usage go by, by app and version';

-- 0009_rejected_route

ALTER TABLE `uptake_internal`.`rejected_events_local` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `route` LowCardinality(String) COMMENT 'Method and path of the gateway''s route that it came by; empty for stage enricher and for what was rejected before this column was added',
    ADD COLUMN IF NOT EXISTS `envelope` String COMMENT 'JSON text of what stood around it in its request and is needed to send it again; empty: nothing is, or the app has privacy rules' CODEC(ZSTD(1));

ALTER TABLE `uptake`.`rejected_events` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `route` LowCardinality(String) COMMENT 'Method and path of the gateway''s route that it came by; empty for stage enricher and for what was rejected before this column was added',
    ADD COLUMN IF NOT EXISTS `envelope` String COMMENT 'JSON text of what stood around it in its request and is needed to send it again; empty: nothing is, or the app has privacy rules';

-- 0010_signals

CREATE TABLE IF NOT EXISTS `uptake_internal`.`signal_log_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `alert_id` String COMMENT 'The same from firing, or entering, to the end',
    `message_id` String COMMENT 'Of the change of state',
    `signal_use` LowCardinality(String) COMMENT 'alert, segment or health',
    `signal` LowCardinality(String) COMMENT 'Id of the definition',
    `band` LowCardinality(String) COMMENT 'Of a health score',
    `version` UInt32 COMMENT 'Of the definition',
    `state` LowCardinality(String) COMMENT 'firing, resolved, retracted, acknowledged, entered or left',
    `level` LowCardinality(String) COMMENT 'account, user or app',
    `subject` String COMMENT 'Account, user or app',
    `severity` LowCardinality(String),
    `owner` String COMMENT 'Trait owner of the account, else of the definition',
    `title` String COMMENT 'Description of the definition',
    `reason` String COMMENT 'In words, with the numbers',
    `playbook` String,
    `closes` String COMMENT 'What closes the loop',
    `value` Float64 COMMENT 'Measured value',
    `limit_value` Float64 COMMENT 'Limit, absolute',
    `mean` Float64 COMMENT 'Mean of the windows before, of a relative limit',
    `at` DateTime64(3, 'UTC') COMMENT 'End of the day or hour that value is of',
    `valid_from` DateTime64(3, 'UTC') COMMENT 'When it fired, in the data',
    `valid_to` Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ended, in the data',
    `silent` UInt8 COMMENT '1: not delivered',
    `acted_by` String COMMENT 'Of an acknowledgement',
    `feedback` LowCardinality(String) COMMENT 'useful or false_positive',
    `note` String,
    `written_at` DateTime64(3, 'UTC'),
    `log_topic_id` LowCardinality(String),
    `log_offset` Int64
)
ENGINE = ReplicatedReplacingMergeTree(written_at)
ORDER BY (app_id, signal_use, alert_id, message_id)
COMMENT 'Changes of state of alerts, segments and health bands';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`signal_log` ON CLUSTER `main` AS `uptake_internal`.`signal_log_local` ENGINE = Distributed(`main`, `uptake_internal`, `signal_log_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`health_scores_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `health_id` LowCardinality(String) COMMENT 'Id of the definition',
    `account_id` String,
    `version` UInt32 COMMENT 'Of the definition',
    `owner` String,
    `day` Date COMMENT 'Last UTC day that counts',
    `score` Float64,
    `band` LowCardinality(String),
    `score_4w` Float64,
    `score_12w` Float64,
    `reason` String,
    `consequence` Nullable(Float64),
    `priority` Float64,
    `parts` Array(Tuple(id String, kind String, value Float64, yardstick Float64, weight Float64, share Float64, change Float64, sentence String)),
    `written_at` DateTime64(3, 'UTC'),
    `log_topic_id` LowCardinality(String),
    `log_offset` Int64,
    `removed` UInt8 COMMENT '1: the account has no score any more'
)
ENGINE = ReplicatedReplacingMergeTree(written_at, removed)
ORDER BY (app_id, health_id, account_id)
COMMENT 'Newest score of each account by each health definition';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`health_scores` ON CLUSTER `main` AS `uptake_internal`.`health_scores_local` ENGINE = Distributed(`main`, `uptake_internal`, `health_scores_local`);

-- 0011_parts_of_hours

ALTER TABLE `uptake_internal`.`corrections_local` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') COMMENT 'Event time from which on events of the hour are moved' CODEC(Delta, ZSTD(1)) AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') COMMENT 'Event time before which events of the hour are moved; 1970: the whole hour is' CODEC(Delta, ZSTD(1)) AFTER `part_from`,
    ADD INDEX IF NOT EXISTS `hours` hour TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS `visitor` anonymous_id TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE `uptake_internal`.`correction_plans_local` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') AFTER `part_from`;

ALTER TABLE `uptake_internal`.`events_local` ON CLUSTER `main`
    ADD INDEX IF NOT EXISTS `visitor` anonymous_id TYPE bloom_filter(0.01) GRANULARITY 4;

ALTER TABLE `uptake_internal`.`corrections` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') AFTER `part_from`;

ALTER TABLE `uptake_internal`.`correction_plans` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') AFTER `part_from`;

-- 0012_order_of_traits

ALTER TABLE `uptake_internal`.`identity_facts_local` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `stated` SimpleAggregateFunction(max, Tuple(at DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), source_offset Int64, value String)) COMMENT 'Traits: the latest call, its place, and the JSON text of the trait that it said; 1970: no call since the column was added. max it' AFTER `last`;

ALTER TABLE `uptake_internal`.`identity_facts` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `stated` SimpleAggregateFunction(max, Tuple(at DateTime64(6, 'UTC'), received_at DateTime64(6, 'UTC'), source_offset Int64, value String)) AFTER `last`;

ALTER TABLE `uptake_internal`.`identity_facts_from_events` ON CLUSTER `main` MODIFY QUERY
WITH ['$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll'] AS operators
SELECT
    e.app_id AS app_id, f.1 AS fact, f.2 AS subject, f.3 AS object,
    if(fact IN ('membership', 'parent') OR position(object, '\0') > 0, e.event_time, toDateTime64(0, 6, 'UTC')) AS at, e.event_time AS first, (e.event_time, f.4) AS last,
    if(fact IN ('user', 'account'), (e.event_time, e.received_at, e.source_offset, f.4), (toDateTime64(0, 6, 'UTC'), toDateTime64(0, 6, 'UTC'), toInt64(0), '')) AS stated
FROM `uptake_internal`.`events_local` AS e
ARRAY JOIN arrayConcat(
    if(e.user_id != '' AND e.anonymous_id != '', [('anonymous', e.anonymous_id, e.user_id, '')], []),
    if(e.kind = 'alias' AND e.user_id != '' AND e.previous_id NOT IN ('', e.user_id),
        [('anonymous', e.previous_id, e.user_id, ''), ('alias', e.previous_id, e.user_id, '')], []),
    if(e.kind IN ('group', 'identify') AND e.user_id != '' AND e.account_id != '' AND e.account_source = 'event',
        [('membership', e.user_id, e.account_id, toString(e.role))], []),
    if(e.kind = 'group' AND e.account_id != '' AND e.parent_account_id NOT IN ('', e.account_id), [('parent', e.account_id, e.parent_account_id, '')], []),
    if((e.kind = 'identify' AND e.user_id != '') OR (e.kind = 'group' AND e.account_id != ''),
        arrayMap(t -> (if(e.kind = 'group', 'account', 'user'), if(e.kind = 'group', e.account_id, e.user_id), t.1, t.2),
            arrayPushFront(arrayFilter(t -> NOT has(operators, t.1), JSONExtractKeysAndValuesRaw(toJSONString(e.traits))), ('', ''))), []),
    if((e.kind = 'identify' AND e.user_id != '') OR (e.kind = 'group' AND e.account_id != ''),
        arrayMap(t -> (if(e.kind = 'group', 'account', 'user'), if(e.kind = 'group', e.account_id, e.user_id), concat(t.1, '\0', t.2, '\0', e.message_id), t.3),
            arrayFlatten(arrayMap(
                o -> multiIf(
                    startsWith(o.2, '{'), arrayMap(t -> (t.1, o.1, t.2), JSONExtractKeysAndValuesRaw(o.2)),
                    startsWith(o.2, '['), arrayMap(t -> (t, o.1, ''), JSONExtract(o.2, 'Array(String)')),
                    [('', o.1, '')]),
                arrayFilter(t -> has(operators, t.1), JSONExtractKeysAndValuesRaw(toJSONString(e.traits)))))), [])) AS f
WHERE e.kind IN ('identify', 'group', 'alias') OR (e.user_id != '' AND e.anonymous_id != '');

-- 0013_cost_of_merges

ALTER TABLE `uptake_internal`.`events_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream', merge_selector_base = 20;

ALTER TABLE `uptake_internal`.`usage_hourly_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream';

ALTER TABLE `uptake_internal`.`account_feature_daily_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream';

ALTER TABLE `uptake_internal`.`account_module_daily_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream';

ALTER TABLE `uptake_internal`.`account_product_daily_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream';

ALTER TABLE `uptake_internal`.`user_feature_daily_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream';

ALTER TABLE `uptake_internal`.`identity_facts_local` ON CLUSTER `main`
    MODIFY SETTING string_serialization_version = 'single_stream';

-- 0014_notes

CREATE TABLE IF NOT EXISTS `uptake_internal`.`notes_local` ON CLUSTER `main`
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
ENGINE = ReplicatedReplacingMergeTree(version)
ORDER BY (app_id, kind, id)
COMMENT 'Notes: the newest version of each';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`notes` ON CLUSTER `main` AS `uptake_internal`.`notes_local` ENGINE = Distributed(`main`, `uptake_internal`, `notes_local`);

-- 0015_user_agents

CREATE TABLE IF NOT EXISTS `uptake_internal`.`user_agents_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `user_agent` LowCardinality(String) COMMENT 'As the event has it',
    `anonymous_id` String COMMENT 'Anonymous id of events that named no user',
    `user_id` String COMMENT 'User that the event named',
    `actor_kind` LowCardinality(String) COMMENT 'user or anonymous, as counted on arrival',
    `actor_id` String COMMENT 'Who did it, as counted on arrival',
    `last_seen` SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'Latest event time: max it'
)
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (app_id, user_agent, anonymous_id, user_id, actor_kind, actor_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'User agents that users and anonymous ids came with';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`user_agents` ON CLUSTER `main` AS `uptake_internal`.`user_agents_local` ENGINE = Distributed(`main`, `uptake_internal`, `user_agents_local`);

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake_internal`.`user_agents_from_events` ON CLUSTER `main` TO `uptake_internal`.`user_agents_local` AS
SELECT
    e.app_id AS app_id, toLowCardinality(e.user_agent) AS user_agent, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id, e.user_id AS user_id,
    e.actor_kind AS actor_kind, e.actor_id AS actor_id, max(e.event_time) AS last_seen
FROM `uptake_internal`.`events_local` AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call') AND e.user_agent != '' AND (e.user_id != '' OR e.anonymous_id != '')
GROUP BY app_id, user_agent, anonymous_id, user_id, actor_kind, actor_id;

-- 0016_looks

CREATE TABLE IF NOT EXISTS `uptake_internal`.`looks_local` ON CLUSTER `main`
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
ENGINE = ReplicatedReplacingMergeTree(written_at)
ORDER BY (app_id, looked_at, log_topic_id, log_offset)
TTL toDateTime(looked_at) + INTERVAL 400 DAY
COMMENT 'Who looked at whom';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`looks` ON CLUSTER `main` AS `uptake_internal`.`looks_local` ENGINE = Distributed(`main`, `uptake_internal`, `looks_local`);

-- 0017_behaviour_clusters

CREATE TABLE IF NOT EXISTS `uptake_internal`.`behaviour_clusters_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'The run',
    `cluster` UInt32 COMMENT 'Number of the cluster, the largest is 1; 0: those in no cluster',
    `units` UInt64 COMMENT 'How many users or accounts are in it',
    `description` String COMMENT 'What sets it apart, in words',
    `feature_shares` Map(String, Float64) COMMENT 'Mean share of each feature in the usage of its members',
    `rest_feature_shares` Map(String, Float64) COMMENT 'The same of all others',
    `frequency` Float64 COMMENT 'Mean share of days with usage',
    `days_since_last` Float64 COMMENT 'Mean number of days from the last usage to the end of the range',
    `events` Float64 COMMENT 'Mean number of events',
    `from_day` Date,
    `to_day` Date COMMENT 'Exclusive',
    `zone` LowCardinality(String),
    `units_looked_at` UInt64 COMMENT 'Units with usage in the range',
    `units_left_out` UInt64 COMMENT 'Those of them with fewer than min_events events',
    `units_sampled` UInt64 COMMENT 'Those that the clusters were found from; others were assigned',
    `min_events` UInt32,
    `min_points` UInt32,
    `eps` Float64,
    `seed` UInt64
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (app_id, unit_kind, computed_at, cluster)
COMMENT 'Clusters of users and accounts by behaviour';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`behaviour_clusters` ON CLUSTER `main` AS `uptake_internal`.`behaviour_clusters_local` ENGINE = Distributed(`main`, `uptake_internal`, `behaviour_clusters_local`);

CREATE TABLE IF NOT EXISTS `uptake_internal`.`behaviour_cluster_members_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'The run',
    `unit_id` String COMMENT 'User or account',
    `cluster` UInt32 COMMENT '0: in no cluster',
    `distance` Float64 COMMENT 'Distance from the mean of the cluster'
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (app_id, unit_kind, computed_at, unit_id)
COMMENT 'Which user or account is in which cluster';

CREATE TABLE IF NOT EXISTS `uptake_internal`.`behaviour_cluster_members` ON CLUSTER `main` AS `uptake_internal`.`behaviour_cluster_members_local` ENGINE = Distributed(`main`, `uptake_internal`, `behaviour_cluster_members_local`);

-- 0018_clients

ALTER TABLE `uptake_internal`.`events_local` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `country` LowCardinality(String) COMMENT 'Country of the client, two letters of ISO 3166-1: as its sender states, else by its address; empty: not known' AFTER `user_agent`,
    ADD COLUMN IF NOT EXISTS `browser` LowCardinality(String) COMMENT 'Browser, as its sender states, else by the user agent; empty: none or not known' AFTER `country`,
    ADD COLUMN IF NOT EXISTS `os` LowCardinality(String) COMMENT 'Operating system of the client, as its sender states, else by the user agent; empty: not known' AFTER `browser`,
    ADD COLUMN IF NOT EXISTS `device_class` LowCardinality(String) COMMENT 'desktop, mobile, tablet, tv, console, wearable or bot; empty: not known' AFTER `os`,
    ADD COLUMN IF NOT EXISTS `referrer` LowCardinality(String) DEFAULT if(domainWithoutWWW(JSONExtractString(context, 'page', 'referrer')) = domainWithoutWWW(JSONExtractString(context, 'page', 'url')), '', lower(domain(JSONExtractString(context, 'page', 'referrer')))) COMMENT 'Host of the page that led to this one; empty: none, or the same host' AFTER `device_class`,
    ADD COLUMN IF NOT EXISTS `utm_source` LowCardinality(String) DEFAULT JSONExtractString(context, 'campaign', 'source') COMMENT 'Source of the campaign; empty: none' AFTER `referrer`,
    ADD COLUMN IF NOT EXISTS `utm_medium` LowCardinality(String) DEFAULT JSONExtractString(context, 'campaign', 'medium') COMMENT 'Medium of the campaign; empty: none' AFTER `utm_source`,
    ADD COLUMN IF NOT EXISTS `utm_campaign` LowCardinality(String) DEFAULT JSONExtractString(context, 'campaign', 'name') COMMENT 'Name of the campaign; empty: none' AFTER `utm_medium`;

ALTER TABLE `uptake`.`events` ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS `country` LowCardinality(String) COMMENT 'Country of the client, two letters of ISO 3166-1: as its sender states, else by its address; empty: not known' AFTER `user_agent`,
    ADD COLUMN IF NOT EXISTS `browser` LowCardinality(String) COMMENT 'Browser, as its sender states, else by the user agent; empty: none or not known' AFTER `country`,
    ADD COLUMN IF NOT EXISTS `os` LowCardinality(String) COMMENT 'Operating system of the client, as its sender states, else by the user agent; empty: not known' AFTER `browser`,
    ADD COLUMN IF NOT EXISTS `device_class` LowCardinality(String) COMMENT 'desktop, mobile, tablet, tv, console, wearable or bot; empty: not known' AFTER `os`,
    ADD COLUMN IF NOT EXISTS `referrer` LowCardinality(String) COMMENT 'Host of the page that led to this one; empty: none, or the same host' AFTER `device_class`,
    ADD COLUMN IF NOT EXISTS `utm_source` LowCardinality(String) COMMENT 'Source of the campaign; empty: none' AFTER `referrer`,
    ADD COLUMN IF NOT EXISTS `utm_medium` LowCardinality(String) COMMENT 'Medium of the campaign; empty: none' AFTER `utm_source`,
    ADD COLUMN IF NOT EXISTS `utm_campaign` LowCardinality(String) COMMENT 'Name of the campaign; empty: none' AFTER `utm_medium`;

-- view account_feature_daily

CREATE OR REPLACE VIEW `uptake`.`account_feature_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a feature by an account on a day: one row for each, without those whose events were all moved elsewhere. For sums alone account_feature_daily_sums costs less'
AS
SELECT app_id, account_id, feature_id, module_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`account_feature_daily` AS r
GROUP BY app_id, account_id, feature_id, module_id, product_id, day
HAVING events != 0 OR quantity != 0;

-- view account_parents

CREATE OR REPLACE VIEW `uptake`.`account_parents` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `parent_account_id` String COMMENT 'The account above it',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the call: the parent counts from it on'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Parents of accounts, as group calls stated them'
AS
SELECT DISTINCT app_id, subject AS account_id, object AS parent_account_id, at AS since
FROM `uptake_internal`.`identity_facts`
WHERE fact = 'parent';

-- view account_parents_in_force

CREATE OR REPLACE VIEW `uptake`.`account_parents_in_force` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `parent_account_id` String COMMENT 'The account above it',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the call: the parent counts from it on'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Parents of accounts that count: without assignments that would make an account an ancestor of itself'
AS
WITH RECURSIVE
    (
        SELECT groupArray((app_id, account_id, parent_account_id, since, until))
        FROM
        (
            SELECT *, leadInFrame(since, 1, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) OVER (
                PARTITION BY app_id, account_id ORDER BY since, parent_account_id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS until
            FROM `uptake`.`account_parents`
        )
        WHERE (app_id, account_id) IN (SELECT app_id, parent_account_id FROM `uptake`.`account_parents`)
            AND (app_id, parent_account_id) IN (SELECT app_id, account_id FROM `uptake`.`account_parents`)
    ) AS amid_rows,
    amid AS (SELECT e.1 AS app_id, e.2 AS account_id, e.3 AS parent_account_id, e.4 AS since, e.5 AS until FROM (SELECT arrayJoin(amid_rows) AS e)),
    back AS
    (
        SELECT app_id, account_id, since, parent_account_id AS above, 1 AS depth FROM amid
        UNION ALL
        SELECT b.app_id, b.account_id, b.since, s.parent_account_id, b.depth + 1
        FROM back AS b
        INNER JOIN amid AS s ON s.app_id = b.app_id AND s.account_id = b.above
        WHERE s.since <= b.since AND b.since < s.until AND b.above != b.account_id AND b.depth < 64
    )
SELECT app_id, account_id, parent_account_id, since
FROM `uptake`.`account_parents`
WHERE (app_id, account_id, since) NOT IN (SELECT app_id, account_id, since FROM back WHERE above = account_id);

-- view account_paths_history

CREATE OR REPLACE VIEW `uptake`.`account_paths_history` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `ancestors` Array(String) COMMENT 'The account itself first, then its parent, and so on; at most 64',
    `valid_from` DateTime64(6, 'UTC') COMMENT 'From when on; 1900-01-01: always',
    `valid_to` DateTime64(6, 'UTC') COMMENT 'Until when; 2299-12-31: it counts today'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The ancestors of each account that has a parent or is one, over time'
AS
WITH RECURSIVE
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS always,
    toDateTime64('2299-12-31 23:59:59', 6, 'UTC') AS never,
    (
        SELECT groupArray((app_id, account_id, spans))
        FROM
        (
            SELECT app_id, account_id, arraySort(groupArrayIf((since, parent_account_id), parent_account_id != '')) AS edges,
                arrayPushFront(arrayMap(e -> e.2, edges), '') AS parents, arrayPushFront(arrayMap(e -> e.1, edges), always) AS starts,
                arrayFilter(s -> s.2 < s.3, arrayZip(parents, starts, arrayPushBack(arrayPopFront(starts), never))) AS spans
            FROM
            (
                SELECT app_id, account_id, parent_account_id, since FROM `uptake`.`account_parents_in_force`
                UNION ALL
                SELECT DISTINCT app_id, arrayJoin([account_id, parent_account_id]), '', always FROM `uptake`.`account_parents`
            )
            GROUP BY app_id, account_id
        )
    ) AS all_spans,
    cover AS
    (
        SELECT s.1 AS app_id, s.2 AS account_id, tupleElement(arrayJoin(s.3) AS span, 1) AS parent_account_id, span.2 AS valid_from, span.3 AS valid_to
        FROM (SELECT arrayJoin(all_spans) AS s)
    ),
    heads AS (SELECT * FROM cover WHERE (app_id, account_id) IN (SELECT app_id, parent_account_id FROM cover)),
    walk AS
    (
        SELECT app_id, account_id, [account_id] AS ancestors, parent_account_id AS next, valid_from, valid_to FROM heads
        UNION ALL
        SELECT w.app_id, w.account_id, arrayPushBack(w.ancestors, w.next), c.parent_account_id, greatest(w.valid_from, c.valid_from), least(w.valid_to, c.valid_to)
        FROM walk AS w
        INNER JOIN heads AS c ON c.app_id = w.app_id AND c.account_id = w.next
        WHERE w.next != '' AND NOT has(w.ancestors, w.next) AND w.valid_from < c.valid_to AND c.valid_from < w.valid_to AND length(w.ancestors) < 64
    )
SELECT c.app_id AS app_id, c.account_id AS account_id, arrayDistinct(arrayPushFront(p.ancestors, c.account_id)) AS ancestors,
    if(p.account_id = '', c.valid_from, greatest(c.valid_from, p.valid_from)) AS valid_from, if(p.account_id = '', c.valid_to, least(c.valid_to, p.valid_to)) AS valid_to
FROM cover AS c
LEFT JOIN (SELECT * FROM walk WHERE next = '' OR has(ancestors, next) OR length(ancestors) = 64) AS p ON p.app_id = c.app_id AND p.account_id = c.parent_account_id
WHERE p.account_id = '' OR (c.valid_from < p.valid_to AND p.valid_from < c.valid_to);

-- view account_feature_daily_as_then

CREATE OR REPLACE VIEW `uptake`.`account_feature_daily_as_then` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a feature by an account on a day, once for the account itself and once for each account above it, as they were above it at the end of the day. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.feature_id AS feature_id, r.module_id AS module_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM `uptake`.`account_feature_daily` AS r
LEFT ASOF JOIN `uptake`.`account_paths_history` AS p
    ON p.app_id = r.app_id AND p.account_id = r.account_id AND toDateTime64(r.day + 1, 6, 'UTC') > p.valid_from
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

-- view account_paths

CREATE OR REPLACE VIEW `uptake`.`account_paths` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `ancestors` Array(String) COMMENT 'The account itself first, then its parent, and so on; at most 64'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The ancestors of each account that has a parent or is one, today'
AS
WITH
    (
        SELECT (groupArray(concat(app_id, '\0', account_id)), groupArray(parent_account_id))
        FROM
        (
            SELECT app_id, account_id, argMax(p.parent_account_id, (p.since, p.parent_account_id)) AS parent_account_id
            FROM `uptake`.`account_parents_in_force` AS p
            GROUP BY app_id, account_id
        )
    ) AS today,
    account -> transform(account, today.1, today.2, '') AS parent_of
SELECT a.app_id AS app_id, a.account_id AS account_id, arrayDistinct(arrayFilter(id -> id != '', arrayPushFront(p.path, a.account_id))) AS ancestors
FROM
(
    SELECT DISTINCT app_id, arrayJoin([account_id, parent_account_id]) AS account_id, parent_of(concat(app_id, '\0', account_id)) AS parent
    FROM `uptake`.`account_parents`
) AS a
LEFT JOIN
(
    SELECT app_id, account_id,
        arrayFold((path, step) -> if(path[-1] = '', path, arrayPushBack(path, parent_of(concat(app_id, '\0', path[-1])))), range(63), [account_id]) AS path
    FROM (SELECT DISTINCT app_id, parent_account_id AS account_id FROM `uptake`.`account_parents`)
) AS p ON p.app_id = a.app_id AND p.account_id = a.parent;

-- view account_feature_daily_as_today

CREATE OR REPLACE VIEW `uptake`.`account_feature_daily_as_today` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a feature by an account on a day, once for the account itself and once for each account above it, as they are above it today. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.feature_id AS feature_id, r.module_id AS module_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM `uptake`.`account_feature_daily` AS r
LEFT JOIN `uptake`.`account_paths` AS p ON p.app_id = r.app_id AND p.account_id = r.account_id
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

-- view account_feature_daily_sums

CREATE OR REPLACE VIEW `uptake`.`account_feature_daily_sums` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events, signed: sum it',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for, signed: sum it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The rows of account_feature_daily before they are summed: right for sum(events) and sum(quantity), grouped by anything, and for nothing else. A key may have several rows, and rows whose sum is 0'
AS
SELECT app_id, account_id, feature_id, module_id, product_id, day, events, quantity
FROM `uptake_internal`.`account_feature_daily`;

-- view account_health

CREATE OR REPLACE VIEW `uptake`.`account_health` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `health_id` LowCardinality(String) COMMENT 'Id of the definition',
    `account_id` String COMMENT 'Customer account',
    `score` Float64 COMMENT '0 to 100',
    `band` LowCardinality(String) COMMENT 'Band that the score lies in',
    `score_4w` Float64 COMMENT 'Score 4 weeks before, from history as now known',
    `score_12w` Float64 COMMENT 'Score 12 weeks before, from history as now known',
    `reason` String COMMENT 'Part that changed the score most in 4 weeks',
    `consequence` Nullable(Float64) COMMENT 'Trait of the account that weighs it, such as the contract value',
    `priority` Float64 COMMENT 'What is at stake: missing share of the score times consequence (1 without one)',
    `owner` String COMMENT 'Trait owner of the account, else owner of the definition',
    `day` Date COMMENT 'Last UTC day that counts',
    `version` UInt32 COMMENT 'Version of the definition'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Health of accounts, what to look at first at the top; account_health_parts has the components'
AS
SELECT app_id, health_id, account_id, score, band, score_4w, score_12w, reason, consequence, priority, owner, day, version
FROM `uptake_internal`.`health_scores` FINAL
WHERE NOT removed
ORDER BY priority DESC, app_id, health_id, account_id;

-- view account_health_parts

CREATE OR REPLACE VIEW `uptake`.`account_health_parts` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `health_id` LowCardinality(String) COMMENT 'Id of the definition',
    `account_id` String COMMENT 'Customer account',
    `part` String COMMENT 'Id of the component',
    `kind` LowCardinality(String) COMMENT 'behaviour, friction or revenue',
    `value` Float64 COMMENT 'Measured value, or trait',
    `yardstick` Float64 COMMENT 'Value at which the component is full; of friction, at its worst',
    `weight` Float64 COMMENT 'Weight in the score',
    `share` Float64 COMMENT '0 to 1: the score is 100 times the weighted mean of shares',
    `change_4w` Float64 COMMENT 'Points of the score that it brought or took in 4 weeks',
    `sentence` String COMMENT 'The component in words',
    `day` Date COMMENT 'Last UTC day that counts'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Components of the health of accounts'
AS
SELECT app_id, health_id, account_id, p.id AS part, toLowCardinality(p.kind) AS kind, p.value AS value, p.yardstick AS yardstick, p.weight AS weight, p.share AS share, p.change AS change_4w, p.sentence AS sentence, day
FROM (SELECT app_id, health_id, account_id, day, parts FROM `uptake_internal`.`health_scores` FINAL WHERE NOT removed)
ARRAY JOIN parts AS p
ORDER BY app_id, health_id, account_id, part;

-- view identity_links

CREATE OR REPLACE VIEW `uptake`.`identity_links` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id_kind` String COMMENT 'What id is: anonymous or user (an alias)',
    `id` String COMMENT 'The anonymous id, or the user id before the alias',
    `user_id` String COMMENT 'User that it belongs to',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the first call that stated it',
    `last_said` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Identity links as calls stated them: an anonymous id that belongs to a user, or a user id that is an alias of another. Links that count today: identities'
AS
SELECT app_id, if(fact = 'alias', 'user', 'anonymous') AS id_kind, subject AS id, object AS user_id, CAST(min(f.first) AS DateTime64(6, 'UTC')) AS since, max(f.last).1 AS last_said
FROM `uptake_internal`.`identity_facts` AS f
WHERE fact IN ('anonymous', 'alias')
GROUP BY app_id, fact, subject, object;

-- view identities

CREATE OR REPLACE VIEW `uptake`.`identities` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id_kind` String COMMENT 'What id is: anonymous or user (an alias)',
    `id` String COMMENT 'The anonymous id, or the user id before the alias',
    `user_id` String COMMENT 'User that it belongs to',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the first call that stated it',
    `last_said` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it',
    `in_force` UInt8 COMMENT '1: of the links of this id, the one that counts now, since it was stated last'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Identity links that count: all that calls stated, without those that operators undid'
AS
SELECT
    app_id, id_kind, id, user_id, since, last_said,
    row_number() OVER (PARTITION BY app_id, id_kind, id ORDER BY last_said DESC, user_id DESC) = 1 AS in_force
FROM `uptake`.`identity_links` AS said
LEFT JOIN
(
    SELECT app_id, id_kind, id, user_id, max(u.until) AS until
    FROM `uptake_internal`.`identity_unlinks` AS u
    GROUP BY app_id, id_kind, id, user_id
) AS undone USING (app_id, id_kind, id, user_id)
WHERE last_said > until;

-- view user_roots

CREATE OR REPLACE VIEW `uptake`.`user_roots` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'A user id that is an alias',
    `root_id` String COMMENT 'User that its events count for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Aliased users and the user that each counts for after all aliases'
AS
WITH RECURSIVE
    aliases AS (SELECT app_id, id, user_id, since FROM `uptake`.`identities` WHERE id_kind = 'user' AND in_force),
    walk AS
    (
        SELECT app_id, id AS user_id, [id] AS path, [since] AS said, a.user_id AS next
        FROM aliases AS a
        UNION ALL
        SELECT w.app_id, w.user_id, arrayPushBack(w.path, w.next), arrayPushBack(w.said, a.since), a.user_id
        FROM walk AS w
        LEFT JOIN aliases AS a ON a.app_id = w.app_id AND a.id = w.next
        WHERE w.next != '' AND NOT has(w.path, w.next) AND length(w.path) < 100
    )
SELECT
    app_id, user_id,
    if(next = '', path[-1],
        tupleElement(arraySort(arraySlice(arrayZip(said, path), indexOf(path, next)))[-1], 2)) AS root_id
FROM walk
WHERE next = '' OR has(path, next);

-- view metric_points

CREATE OR REPLACE VIEW `uptake`.`metric_points` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `unit` String COMMENT 'Unit of the value',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Start of the period that the number is of',
    `period_end` DateTime64(6, 'UTC') COMMENT 'End of the period; equal to the start: the number is of an instant',
    `at` DateTime64(6, 'UTC') COMMENT 'Instant that a gauge or a cumulative number is of: the last one of its period',
    `value` Float64 COMMENT 'The number',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Timestamp of the report that counts, as it was sent',
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received that report',
    `series` UInt64 COMMENT 'Reports of the same account, actor and dimensions: all names of one user are one actor'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Numbers of metric events: one row for each number of each period, as it was reported last'
AS
SELECT
    app_id, metric_id, number, semantics, unit,
    tupleElement(said, 'account_id') AS account_id, tupleElement(said, 'actor_id') AS actor_id, tupleElement(said, 'actor_kind') AS actor_kind,
    JSONExtract(dimensions_text, 'Map(String, String)') AS dimensions,
    period_start, period_end, if(period_end > period_start, period_end - toIntervalMicrosecond(1), period_end) AS at,
    tupleElement(said, 'value') AS value, tupleElement(said, 'said_at') AS said_at, tupleElement(said, 'received_at') AS received_at, series
FROM
(
    SELECT
        v.app_id AS app_id, if(c.id = '', toString(v.event), c.id) AS metric_id, v.number AS number, any(c.meaning) AS semantics, any(c.of) AS unit,
        v.dimensions AS dimensions_text, v.period_start AS period_start, v.period_end AS period_end,
        cityHash64(v.account_id, v.kind, v.who, v.dimensions) AS series, max(v.newest) AS said
    FROM
    (
        -- Whose report it is: of the user that it counted for or that the visitor first
        -- turned out to be, after all aliases; else of the visitor.
        SELECT
            n.app_id AS app_id, n.event AS event, n.number AS number, n.account_id AS account_id, n.dimensions AS dimensions,
            n.period_start AS period_start, n.period_end AS period_end, n.message_id AS message_id, n.newest AS newest,
            tupleElement(n.newest, 'actor_kind') AS told_kind, tupleElement(n.newest, 'actor_id') AS told,
            multiIf(told_kind = 'user', told, told_kind = 'anonymous', l.user_id, '') AS user,
            if(user = '', told_kind, 'user') AS kind, multiIf(user = '', told, r.root_id = '', user, r.root_id) AS who
        FROM
        (
            SELECT app_id, event, number, account_id, user_id, anonymous_id, dimensions, period_start, period_end, message_id, max(m.last) AS newest
            FROM `uptake_internal`.`metric_values` AS m
            GROUP BY app_id, event, number, account_id, user_id, anonymous_id, dimensions, period_start, period_end, message_id
        ) AS n
        LEFT JOIN
        (
            SELECT app_id, id, argMin(user_id, (since, user_id)) AS user_id
            FROM `uptake`.`identities`
            WHERE id_kind = 'anonymous'
            GROUP BY app_id, id
        ) AS l ON l.app_id = n.app_id AND l.id = tupleElement(n.newest, 'actor_id')
        LEFT JOIN `uptake`.`user_roots` AS r ON r.app_id = n.app_id
            AND r.user_id = if(tupleElement(n.newest, 'actor_kind') = 'user', tupleElement(n.newest, 'actor_id'), l.user_id)
    ) AS v
    LEFT JOIN
    (
        SELECT app_id, event, argMax(metric_id, catalog_version) AS id, argMax(toString(semantics), catalog_version) AS meaning, argMax(unit, catalog_version) AS of
        FROM `uptake_internal`.`catalog_metrics`
        GROUP BY app_id, event
        HAVING argMax(removed, catalog_version) = 0
    ) AS c ON c.app_id = v.app_id AND c.event = v.event
    GROUP BY v.app_id, metric_id, v.number, v.account_id, v.kind, v.who, v.dimensions, v.period_start, v.period_end, v.message_id
);

-- view account_metrics

CREATE OR REPLACE VIEW `uptake`.`account_metrics` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `unit` String COMMENT 'Unit of the value',
    `value` Float64 COMMENT 'The number',
    `at` DateTime64(6, 'UTC') COMMENT 'Instant that a gauge or a cumulative number is of: the last one of its period',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Start of the period that the number is of',
    `period_end` DateTime64(6, 'UTC') COMMENT 'End of the period; equal to the start: the number is of an instant'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The latest number of each metric of each account'
AS
SELECT app_id, account_id, metric_id, number, dimensions, semantics, unit, value, at, period_start, period_end
FROM `uptake`.`metric_points`
WHERE actor_kind = 'account' AND account_id != ''
ORDER BY at DESC, said_at DESC, received_at DESC
LIMIT 1 BY app_id, account_id, metric_id, number, dimensions;

-- view account_module_daily

CREATE OR REPLACE VIEW `uptake`.`account_module_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `module_id` LowCardinality(String) COMMENT 'Module of the catalog; empty: the event matches no feature (unmapped)',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a module by an account on a day: one row for each, without those whose events were all moved elsewhere. For sums alone account_module_daily_sums costs less'
AS
SELECT app_id, account_id, module_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`account_module_daily` AS r
GROUP BY app_id, account_id, module_id, product_id, day
HAVING events != 0 OR quantity != 0;

-- view account_module_daily_as_then

CREATE OR REPLACE VIEW `uptake`.`account_module_daily_as_then` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `module_id` LowCardinality(String) COMMENT 'Module of the catalog; empty: the event matches no feature (unmapped)',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a module by an account on a day, once for the account itself and once for each account above it, as they were above it at the end of the day. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.module_id AS module_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM `uptake`.`account_module_daily` AS r
LEFT ASOF JOIN `uptake`.`account_paths_history` AS p
    ON p.app_id = r.app_id AND p.account_id = r.account_id AND toDateTime64(r.day + 1, 6, 'UTC') > p.valid_from
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

-- view account_module_daily_as_today

CREATE OR REPLACE VIEW `uptake`.`account_module_daily_as_today` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `module_id` LowCardinality(String) COMMENT 'Module of the catalog; empty: the event matches no feature (unmapped)',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a module by an account on a day, once for the account itself and once for each account above it, as they are above it today. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.module_id AS module_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM `uptake`.`account_module_daily` AS r
LEFT JOIN `uptake`.`account_paths` AS p ON p.app_id = r.app_id AND p.account_id = r.account_id
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

-- view account_module_daily_sums

CREATE OR REPLACE VIEW `uptake`.`account_module_daily_sums` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `module_id` LowCardinality(String) COMMENT 'Module of the catalog; empty: the event matches no feature (unmapped)',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events, signed: sum it',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for, signed: sum it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The rows of account_module_daily before they are summed: right for sum(events) and sum(quantity), grouped by anything, and for nothing else. A key may have several rows, and rows whose sum is 0'
AS
SELECT app_id, account_id, module_id, product_id, day, events, quantity
FROM `uptake_internal`.`account_module_daily`;

-- view account_product_daily

CREATE OR REPLACE VIEW `uptake`.`account_product_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a product by an account on a day: one row for each, without those whose events were all moved elsewhere. For sums alone account_product_daily_sums costs less'
AS
SELECT app_id, account_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`account_product_daily` AS r
GROUP BY app_id, account_id, product_id, day
HAVING events != 0 OR quantity != 0;

-- view account_product_daily_as_then

CREATE OR REPLACE VIEW `uptake`.`account_product_daily_as_then` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a product by an account on a day, once for the account itself and once for each account above it, as they were above it at the end of the day. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM `uptake`.`account_product_daily` AS r
LEFT ASOF JOIN `uptake`.`account_paths_history` AS p
    ON p.app_id = r.app_id AND p.account_id = r.account_id AND toDateTime64(r.day + 1, 6, 'UTC') > p.valid_from
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

-- view account_product_daily_as_today

CREATE OR REPLACE VIEW `uptake`.`account_product_daily_as_today` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `under_account_id` String COMMENT 'The account itself or one above it: group by it, or choose one',
    `depth` UInt32 COMMENT 'How far under_account_id is above account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a product by an account on a day, once for the account itself and once for each account above it, as they are above it today. Sums over all rows count an event several times: choose one under_account_id or group by it'
AS
SELECT r.app_id AS app_id, r.account_id AS account_id, r.product_id AS product_id, r.day AS day, r.events AS events, r.quantity AS quantity, under AS under_account_id, toUInt32(position - 1) AS depth
FROM `uptake`.`account_product_daily` AS r
LEFT JOIN `uptake`.`account_paths` AS p ON p.app_id = r.app_id AND p.account_id = r.account_id
ARRAY JOIN if(empty(p.ancestors), [r.account_id], p.ancestors) AS under, arrayEnumerate(if(empty(p.ancestors), [r.account_id], p.ancestors)) AS position;

-- view account_product_daily_sums

CREATE OR REPLACE VIEW `uptake`.`account_product_daily_sums` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events, signed: sum it',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for, signed: sum it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The rows of account_product_daily before they are summed: right for sum(events) and sum(quantity), grouped by anything, and for nothing else. A key may have several rows, and rows whose sum is 0'
AS
SELECT app_id, account_id, product_id, day, events, quantity
FROM `uptake_internal`.`account_product_daily`;

-- view account_traits

CREATE OR REPLACE VIEW `uptake`.`account_traits` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `trait` String COMMENT 'Name of the trait; empty: the account itself, also one without traits',
    `value` String COMMENT 'JSON text of its value',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Traits of each account as of its last calls, one row for each trait'
AS
WITH
    x -> if(startsWith(x, '['), JSONExtractArrayRaw(x), if(x = '', [], [x])) AS list,
    x -> concat('[', arrayStringConcat(x, ','), ']') AS text
SELECT
    app_id, account_id, trait,
    arrayFold(
        (had, step) -> multiIf(
            step.3 = '$set', step.4,
            step.3 IN ('$set_once', '$setOnce'), if(had = '', step.4, had),
            step.3 = '$add', toString(toFloat64OrZero(had) + toFloat64OrZero(step.4)),
            step.3 = '$append', text(arrayConcat(list(had), list(step.4))),
            step.3 = '$prepend', text(arrayConcat(list(step.4), list(had))),
            step.3 IN ('$union', '$postInsert'), text(arrayDistinct(arrayConcat(list(had), list(step.4)))),
            step.3 = '$preInsert', text(arrayDistinct(arrayConcat(arrayFilter(v -> NOT has(list(had), v), list(step.4)), list(had)))),
            step.3 = '$remove' AND had != '', text(arrayFilter(v -> NOT has(list(step.4), v), list(had))),
            ''),
        arrayFilter(step -> step.1 > deleted OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, account_id, trait, arraySort(groupArray((place, call_id, operator, value))) AS steps, max(place.1) AS said_at, any(deleted_place) AS deleted
    FROM
    (
        SELECT
            app_id, subject AS account_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, (said.1, said.2, said.3) AS place, said.4 AS value,
            maxIf(place, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_place
        FROM
        (
            SELECT app_id, subject, object, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)) AS said
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE fact = 'account'
            GROUP BY app_id, subject, object
        )
        WHERE trait NOT IN ('$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll')
    )
    GROUP BY app_id, account_id, trait
)
WHERE trait = '' OR value != '';

-- view accounts

CREATE OR REPLACE VIEW `uptake`.`accounts` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `traits` Map(String, String) COMMENT 'Traits by name: traits[''plan'']. Text as it is, other values as JSON text',
    `updated_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated a trait'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Customer accounts that calls named by group, with their traits'
AS
SELECT
    app_id, account_id,
    mapFromArrays(groupArrayIf(trait, trait != ''), groupArrayIf(if(startsWith(value, '"'), JSONExtractString(value), value), trait != '')) AS traits,
    max(said_at) AS updated_at
FROM (SELECT * FROM `uptake`.`account_traits` ORDER BY trait)
GROUP BY app_id, account_id;

-- view memberships

CREATE OR REPLACE VIEW `uptake`.`memberships` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `role` String COMMENT 'Role of the user in the account; empty: none was stated',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the call: the membership counts from it on'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Memberships of users in accounts, as group and identify calls stated them: one row for each event time. Spans of time: memberships_history'
AS
SELECT app_id, subject AS user_id, object AS account_id, max(f.last).2 AS role, at AS since
FROM `uptake_internal`.`identity_facts` AS f
WHERE fact = 'membership'
GROUP BY app_id, subject, object, at;

-- view memberships_history

CREATE OR REPLACE VIEW `uptake`.`memberships_history` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `role` String COMMENT 'Role of the user in the account; empty: none was stated',
    `valid_from` DateTime64(6, 'UTC') COMMENT 'From when on',
    `valid_to` DateTime64(6, 'UTC') COMMENT 'Until when; 2299-12-31: it counts today'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Roles of users in accounts over time: a role counts until the next one that the user has in the same account'
AS
SELECT
    app_id, user_id, account_id, role, since AS valid_from,
    leadInFrame(since, 1, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) OVER (
        PARTITION BY app_id, user_id, account_id ORDER BY since, role ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS valid_to
FROM
(
    SELECT *, lagInFrame(role, 1, '') OVER w AS role_before, row_number() OVER w AS n
    FROM `uptake`.`memberships`
    WINDOW w AS (PARTITION BY app_id, user_id, account_id ORDER BY since, role ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE n = 1 OR role != role_before;

-- view account_profile

CREATE OR REPLACE VIEW `uptake`.`account_profile` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `traits` Map(String, String) COMMENT 'Traits as last stated',
    `ancestors` Array(String) COMMENT 'Parent account, its parent, and so on, today',
    `children` Array(String) COMMENT 'Accounts whose parent it is today',
    `roles` Map(String, UInt64) COMMENT 'Number of memberships in force by role',
    `active_users` UInt64 COMMENT 'Users with usage in the range',
    `active_visitors` UInt64 COMMENT 'Visitors with usage in the range',
    `active_days` UInt64 COMMENT 'Days with usage in the range',
    `events` Int64 COMMENT 'Events in the range',
    `features_used` Array(String) COMMENT 'Features used in the range',
    `core_features_used` Array(String) COMMENT 'Core features among them',
    `core_features_missing` Array(String) COMMENT 'Active core features of the catalog that it did not use',
    `first_seen_hour` DateTime('UTC') COMMENT 'Hour of the first usage of all time',
    `last_seen_hour` DateTime('UTC') COMMENT 'Hour of the last usage before the end of the range',
    `metrics` Map(String, Float64) COMMENT 'Latest value of each reported metric, summed over its dimensions'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'One row for each account: who it is, who uses it, what it uses. Filter by account_id. Parameters: app, from, to, zone.'
AS
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    (SELECT groupArray(feature_id) FROM `uptake_internal`.`catalog_features` FINAL WHERE app_id = {app:String} AND kind = 'core' AND status = 'active' AND removed = 0) AS core
SELECT toLowCardinality({app:String}) AS app_id, k.account_id AS account_id, t.traits AS traits, p.ancestors AS ancestors, c.children AS children, m.roles AS roles,
    u.active_users AS active_users, u.active_visitors AS active_visitors, u.active_days AS active_days, u.events AS events, arraySort(u.features) AS features_used,
    arraySort(arrayFilter(f -> has(u.features, f), core)) AS core_features_used, arraySort(arrayFilter(f -> NOT has(u.features, f), core)) AS core_features_missing,
    u.first_hour AS first_seen_hour, u.last_hour AS last_seen_hour, v.latest AS metrics
FROM
(
    SELECT DISTINCT account_id FROM
    (
        SELECT multiIf(fact = 'account', subject, object) AS account_id FROM `uptake_internal`.`identity_facts` WHERE app_id = {app:String} AND fact IN ('account', 'membership')
        UNION ALL SELECT account_id FROM `uptake_internal`.`account_product_daily` WHERE app_id = {app:String} GROUP BY account_id HAVING sum(events) != 0
    ) WHERE account_id != '' AND account_id NOT IN excluded_accounts
) AS k
LEFT JOIN (SELECT account_id, traits FROM `uptake`.`accounts` WHERE app_id = {app:String}) AS t ON t.account_id = k.account_id
LEFT JOIN (SELECT account_id, arraySlice(a.ancestors, 2) AS ancestors FROM `uptake`.`account_paths` AS a WHERE app_id = {app:String}) AS p ON p.account_id = k.account_id
LEFT JOIN
(
    SELECT x.ancestors[2] AS parent_id, arraySort(groupArray(x.account_id)) AS children
    FROM `uptake`.`account_paths` AS x WHERE x.app_id = {app:String} AND length(x.ancestors) > 1 GROUP BY parent_id
) AS c ON c.parent_id = k.account_id
LEFT JOIN
(
    SELECT account_id, CAST(sumMap([role], [toUInt64(1)]), 'Map(String, UInt64)') AS roles
    FROM (SELECT account_id, toString(role) AS role, user_id FROM `uptake`.`memberships_history` WHERE app_id = {app:String} AND valid_to = toDateTime64('2299-12-31 23:59:59', 6, 'UTC'))
    GROUP BY account_id
) AS m ON m.account_id = k.account_id
LEFT JOIN
(
    SELECT account_id, uniqExactIf(actor_id, day >= {from:Date} AND actor_kind = 'user') AS active_users, uniqExactIf(actor_id, day >= {from:Date} AND actor_kind = 'anonymous') AS active_visitors,
        uniqExactIf(day, day >= {from:Date}) AS active_days, toInt64(sumIf(w.events, day >= {from:Date})) AS events, groupUniqArrayIf(feature_id, day >= {from:Date} AND feature_id != '') AS features,
        min(hour) AS first_hour, max(hour) AS last_hour
    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS w
    GROUP BY account_id
) AS u ON u.account_id = k.account_id
LEFT JOIN
(
    SELECT account_id, mapFromArrays(groupArray(name), groupArray(value)) AS latest
    FROM (SELECT account_id, if(number = '', metric_id, concat(metric_id, '.', number)) AS name, sum(x.value) AS value FROM `uptake`.`account_metrics` AS x WHERE app_id = {app:String} GROUP BY account_id, name ORDER BY name)
    GROUP BY account_id
) AS v ON v.account_id = k.account_id
ORDER BY account_id;

-- view account_subtree

CREATE OR REPLACE VIEW `uptake`.`account_subtree` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'The account above',
    `member_id` String COMMENT 'The account itself or one below it',
    `depth` UInt32 COMMENT 'How far member_id is below account_id; 0: it is the account itself'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Each account with all accounts below it today, itself included'
AS
SELECT k.app_id AS app_id, ancestor AS account_id, k.account_id AS member_id, toUInt32(position - 1) AS depth
FROM
(
    SELECT DISTINCT app_id, arrayJoin(multiIf(fact = 'account', [subject], fact = 'membership', [object], [subject, object])) AS account_id
    FROM `uptake_internal`.`identity_facts`
    WHERE fact IN ('account', 'membership', 'parent')
) AS k
LEFT JOIN `uptake`.`account_paths` AS p ON p.app_id = k.app_id AND p.account_id = k.account_id
ARRAY JOIN if(empty(p.ancestors), [k.account_id], p.ancestors) AS ancestor, arrayEnumerate(if(empty(p.ancestors), [k.account_id], p.ancestors)) AS position;

-- view active_users

CREATE OR REPLACE VIEW `uptake`.`active_users` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `active_people` UInt64 COMMENT 'People: users, and visitors who are not known to be users',
    `active_users` UInt64 COMMENT 'Users among them',
    `active_visitors` UInt64 COMMENT 'Visitors among them',
    `active_accounts` UInt64 COMMENT 'Accounts with activity',
    `events` Int64 COMMENT 'Events that count as activity'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Active users, visitors and accounts of each period: those with an event that counts as activity. Parameters: app, from, to, zone, period (day, week, sunday_week, month or quarter).'
AS
SELECT toLowCardinality({app:String}) AS app_id, period_start, active_people, active_users, toUInt64(active_people - active_users) AS active_visitors, active_accounts, events
FROM (-- Usage that counts as activity, counted once for each period and value.
SELECT multiIf({period:String} = 'day', u.day, {period:String} = 'week', toStartOfWeek(u.day, 1), {period:String} = 'sunday_week', toStartOfWeek(u.day, 0), {period:String} = 'month', toStartOfMonth(u.day), toStartOfQuarter(u.day)) AS period_start, '' AS value,
    uniqExact(u.actor_kind, u.actor_id) AS active_people, uniqExactIf(u.actor_id, u.actor_kind = 'user') AS active_users,
    uniqExactIf(u.account_id, u.account_id != '') AS active_accounts, toInt64(sum(u.events)) AS events
FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
WHERE u.active AND NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter') AND 1
GROUP BY period_start, value
ORDER BY period_start, value);

-- view active_users_by

CREATE OR REPLACE VIEW `uptake`.`active_users_by` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `value` String COMMENT 'Value of the dimension; empty: none',
    `active_people` UInt64 COMMENT 'People: users, and visitors who are not known to be users',
    `active_users` UInt64 COMMENT 'Users among them',
    `active_accounts` UInt64 COMMENT 'Accounts with activity',
    `events` Int64 COMMENT 'Events that count as activity'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Active users and accounts of each period by a dimension. A person may be active under several values. Parameters: app, from, to, zone, period, by (product, module, feature, account, role, account.<trait> or user.<trait>).'
AS
SELECT toLowCardinality({app:String}) AS app_id, period_start, value, active_people, active_users, active_accounts, events
FROM (-- Usage that counts as activity, counted once for each period and value.
SELECT multiIf({period:String} = 'day', u.day, {period:String} = 'week', toStartOfWeek(u.day, 1), {period:String} = 'sunday_week', toStartOfWeek(u.day, 0), {period:String} = 'month', toStartOfMonth(u.day), toStartOfQuarter(u.day)) AS period_start, multiIf({by:String} = 'product', u.product_id, {by:String} = 'module', u.module_id, {by:String} = 'feature', u.feature_id, {by:String} = 'account', u.account_id, {by:String} = 'role', u.role, trait.value) AS value,
    uniqExact(u.actor_kind, u.actor_id) AS active_people, uniqExactIf(u.actor_id, u.actor_kind = 'user') AS active_users,
    uniqExactIf(u.account_id, u.account_id != '') AS active_accounts, toInt64(sum(u.events)) AS events
FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
LEFT ANY JOIN
(
    SELECT subject AS id, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS value
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact = substringIndex({by:String}, '.', 1) AND object != '' AND substringIndex(object, '\0', 1) = substring({by:String}, position({by:String}, '.') + 1)
    GROUP BY id
) AS trait ON trait.id = multiIf(startsWith({by:String}, 'account.'), u.account_id, u.actor_kind = 'user', u.actor_id, '')
WHERE u.active AND NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter') AND NOT throwIf({by:String} NOT IN ('', 'product', 'module', 'feature', 'account', 'role') AND NOT startsWith({by:String}, 'account.') AND NOT startsWith({by:String}, 'user.'), 'by must be product, module, feature, account, role, account.<trait>, user.<trait> or empty')
GROUP BY period_start, value
ORDER BY period_start, value);

-- view active_users_hourly

CREATE OR REPLACE VIEW `uptake`.`active_users_hourly` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `hour_start` DateTime('UTC') COMMENT 'Start of the hour of the zone',
    `active_people` UInt64 COMMENT 'People: users, and visitors who are not known to be users',
    `active_users` UInt64 COMMENT 'Users among them',
    `active_accounts` UInt64 COMMENT 'Accounts with activity',
    `events` Int64 COMMENT 'Events that count as activity'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Active users and accounts of each hour of UTC whose start lies in the days of the zone. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, hour AS hour_start, uniqExact(actor_kind, actor_id) AS active_people, uniqExactIf(actor_id, actor_kind = 'user') AS active_users,
    uniqExactIf(account_id, account_id != '') AS active_accounts, toInt64(sum(u.events)) AS events
FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
WHERE active
GROUP BY hour
ORDER BY hour;

-- view adoption

CREATE OR REPLACE VIEW `uptake`.`adoption` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature of the catalog',
    `people` UInt64 COMMENT 'People who used it',
    `breadth` Nullable(Float64) COMMENT 'Share of the active people who used it',
    `accounts` UInt64 COMMENT 'Accounts that used it',
    `account_breadth` Nullable(Float64) COMMENT 'Share of the active accounts that used it',
    `events` Int64 COMMENT 'Events of it',
    `events_per_person` Float64 COMMENT 'Depth: events / people',
    `days_per_person` Float64 COMMENT 'Frequency: mean number of days on which a person used it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Adoption of each feature in a range: breadth, depth and frequency. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, u.id AS feature_id, uniqExact(u.actor_kind, u.actor_id) AS people, uniqExactIf((u.actor_kind, u.actor_id), u.active_person) / nullIf(any(u.all_people), 0) AS breadth,
    uniqExactIf(u.account_id, u.account_id != '') AS accounts, uniqExactIf(u.account_id, u.account_id != '' AND u.active_account) / nullIf(any(u.all_accounts), 0) AS account_breadth,
    toInt64(sum(u.events)) AS events, events / people AS events_per_person, uniqExact(u.actor_kind, u.actor_id, u.day) / people AS days_per_person
FROM
(
    SELECT id, actor_kind, actor_id, account_id, day, events, max(active) OVER (PARTITION BY actor_kind, actor_id) AS active_person, max(active) OVER (PARTITION BY account_id) AS active_account,
        uniqExactIf((actor_kind, actor_id), active) OVER () AS all_people, uniqExactIf(account_id, active AND account_id != '') OVER () AS all_accounts
    FROM
    (
        SELECT multiIf('feature' = 'feature', feature_id, 'feature' = 'module', module_id, product_id) AS id, actor_kind, actor_id, account_id, day, sum(c.events) AS events, max(c.active) AS active
        FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS c
        WHERE NOT throwIf('feature' NOT IN ('feature', 'module', 'product'), 'level must be feature, module or product')
        GROUP BY id, actor_kind, actor_id, account_id, day
    )
) AS u
WHERE u.id != ''
GROUP BY u.id
ORDER BY people DESC, u.id;

-- view adoption_by

CREATE OR REPLACE VIEW `uptake`.`adoption_by` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Feature, module or product',
    `people` UInt64 COMMENT 'People who used it',
    `breadth` Nullable(Float64) COMMENT 'Share of the active people who used it',
    `accounts` UInt64 COMMENT 'Accounts that used it',
    `account_breadth` Nullable(Float64) COMMENT 'Share of the active accounts that used it',
    `events` Int64 COMMENT 'Events of it',
    `events_per_person` Float64 COMMENT 'Depth: events / people',
    `days_per_person` Float64 COMMENT 'Frequency: mean number of days on which a person used it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Adoption of each feature, module or product in a range. Parameters: app, from, to, zone, level (feature, module or product).'
AS
SELECT toLowCardinality({app:String}) AS app_id, u.id AS id, uniqExact(u.actor_kind, u.actor_id) AS people, uniqExactIf((u.actor_kind, u.actor_id), u.active_person) / nullIf(any(u.all_people), 0) AS breadth,
    uniqExactIf(u.account_id, u.account_id != '') AS accounts, uniqExactIf(u.account_id, u.account_id != '' AND u.active_account) / nullIf(any(u.all_accounts), 0) AS account_breadth,
    toInt64(sum(u.events)) AS events, events / people AS events_per_person, uniqExact(u.actor_kind, u.actor_id, u.day) / people AS days_per_person
FROM
(
    SELECT id, actor_kind, actor_id, account_id, day, events, max(active) OVER (PARTITION BY actor_kind, actor_id) AS active_person, max(active) OVER (PARTITION BY account_id) AS active_account,
        uniqExactIf((actor_kind, actor_id), active) OVER () AS all_people, uniqExactIf(account_id, active AND account_id != '') OVER () AS all_accounts
    FROM
    (
        SELECT multiIf({level:String} = 'feature', feature_id, {level:String} = 'module', module_id, product_id) AS id, actor_kind, actor_id, account_id, day, sum(c.events) AS events, max(c.active) AS active
        FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS c
        WHERE NOT throwIf({level:String} NOT IN ('feature', 'module', 'product'), 'level must be feature, module or product')
        GROUP BY id, actor_kind, actor_id, account_id, day
    )
) AS u
WHERE u.id != ''
GROUP BY u.id
ORDER BY people DESC, u.id;

-- view adoption_changes

CREATE OR REPLACE VIEW `uptake`.`adoption_changes` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `feature_id` String COMMENT 'Feature of the catalog',
    `events_before` Int64 COMMENT 'Events in the range before, of equal length',
    `events_now` Int64 COMMENT 'Events in the range',
    `people_before` UInt64 COMMENT 'People of the account who used it in the range before',
    `people_now` UInt64 COMMENT 'People of the account who used it in the range',
    `change` String COMMENT 'adopted: used now and not before; dropped: the reverse; spreading: by more people; shrinking: by fewer; steady: by as many'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Use of each feature by each account in a range and in the range of equal length before it. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, account_id, feature_id, toInt64(sumIf(u.events, day < {from:Date})) AS events_before, toInt64(sumIf(u.events, day >= {from:Date})) AS events_now,
    uniqExactIf((actor_kind, actor_id), day < {from:Date}) AS people_before, uniqExactIf((actor_kind, actor_id), day >= {from:Date}) AS people_now,
    multiIf(people_before = 0, 'adopted', people_now = 0, 'dropped', people_now > people_before, 'spreading', people_now < people_before, 'shrinking', 'steady') AS change
FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(({from:Date} - ({to:Date} - {from:Date})), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= ({from:Date} - ({to:Date} - {from:Date})) AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(({from:Date} - ({to:Date} - {from:Date})) + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - ({from:Date} - ({to:Date} - {from:Date})) + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= ({from:Date} - ({to:Date} - {from:Date})) - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= ({from:Date} - ({to:Date} - {from:Date})) AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(({from:Date} - ({to:Date} - {from:Date})), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
WHERE account_id != '' AND feature_id != ''
GROUP BY account_id, feature_id
ORDER BY account_id, feature_id;

-- view alert_history

CREATE OR REPLACE VIEW `uptake`.`alert_history` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was said',
    `alert_id` String COMMENT 'Id of the alert, or of the stay in a segment or band',
    `message_id` String COMMENT 'Id of the message that receivers got',
    `signal_use` LowCardinality(String) COMMENT 'alert, segment or health',
    `signal` LowCardinality(String) COMMENT 'Id of the definition',
    `band` LowCardinality(String) COMMENT 'Band of a health score',
    `version` UInt32 COMMENT 'Version of the definition',
    `level` LowCardinality(String) COMMENT 'account, user or app',
    `subject` String COMMENT 'Account, user or app',
    `state` LowCardinality(String) COMMENT 'firing, resolved, retracted, acknowledged, entered or left',
    `owner` String COMMENT 'Who was told',
    `reason` String COMMENT 'Why, in words and numbers',
    `value` Float64 COMMENT 'Measured value, or score',
    `limit_value` Float64 COMMENT 'Limit, or beginning of the band',
    `at` DateTime64(3, 'UTC') COMMENT 'End of the day or hour that the value is of',
    `delivered` UInt8 COMMENT '1: it was for delivery; 0: recorded only',
    `acted_by` String COMMENT 'Who acknowledged',
    `feedback` LowCardinality(String) COMMENT 'useful or false_positive',
    `note` String COMMENT 'Note of an acknowledgement'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'All that alerts, segments and health bands said, with the facts'
AS
SELECT app_id, written_at, alert_id, message_id, signal_use, signal, band, version, level, subject, state, owner, reason, value, limit_value, at, toUInt8(NOT silent) AS delivered, acted_by, feedback, note
FROM `uptake_internal`.`signal_log` FINAL
ORDER BY written_at, log_offset;

-- view alerts

CREATE OR REPLACE VIEW `uptake`.`alerts` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `alert_id` String COMMENT 'Id of the alert, the same from firing to its end',
    `signal` LowCardinality(String) COMMENT 'Id of the definition',
    `version` UInt32 COMMENT 'Version of the definition that it fired under',
    `level` LowCardinality(String) COMMENT 'account, user or app',
    `subject` String COMMENT 'Account, user or app that it is about',
    `state` LowCardinality(String) COMMENT 'firing, resolved, or retracted: a correction of history made it untrue',
    `severity` LowCardinality(String) COMMENT 'info, warning or critical',
    `owner` String COMMENT 'Trait owner of the account, else owner of the definition',
    `title` String COMMENT 'Description of the definition',
    `reason` String COMMENT 'Why, in words and numbers, as of the last change of state',
    `value` Float64 COMMENT 'Measured value when it fired',
    `limit_value` Float64 COMMENT 'Limit that it was compared with',
    `fired_at` DateTime64(3, 'UTC') COMMENT 'End of the day or hour in which it fired',
    `ended_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'End of the day or hour in which it ended',
    `playbook` String COMMENT 'What to do',
    `acknowledged_by` String COMMENT 'Who acknowledged it last; empty: nobody',
    `feedback` LowCardinality(String) COMMENT 'useful or false_positive, as last given',
    `note` String COMMENT 'Note of the last acknowledgement'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Alerts, newest first: a row for each, with its state, why it fired and what was said about it'
AS
SELECT app_id, alert_id, any(signal) AS signal, argMinIf(version, order, not_ack) AS version, any(level) AS level, any(subject) AS subject,
    argMaxIf(state, order, not_ack) AS state, argMaxIf(severity, order, not_ack) AS severity, argMaxIf(owner, order, not_ack) AS owner, argMaxIf(title, order, not_ack) AS title,
    argMaxIf(reason, order, not_ack) AS reason, argMinIf(value, order, not_ack) AS value, argMinIf(limit_value, order, not_ack) AS limit_value,
    argMaxIf(valid_from, order, not_ack) AS fired_at, argMaxIf(tuple(valid_to), order, not_ack).1 AS ended_at, argMaxIf(playbook, order, not_ack) AS playbook,
    argMaxIf(acted_by, order, NOT not_ack) AS acknowledged_by, argMaxIf(feedback, order, NOT not_ack AND feedback != '') AS feedback, argMaxIf(note, order, NOT not_ack) AS note
FROM (SELECT *, (written_at, log_offset) AS order, state != 'acknowledged' AS not_ack FROM `uptake_internal`.`signal_log` FINAL WHERE signal_use = 'alert')
GROUP BY app_id, alert_id
ORDER BY fired_at DESC, app_id, alert_id;

-- view alert_precision

CREATE OR REPLACE VIEW `uptake`.`alert_precision` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `signal` LowCardinality(String) COMMENT 'Id of the alert''s definition',
    `owner` String COMMENT 'Whose alerts',
    `alerts` UInt64 COMMENT 'Alerts that fired',
    `retracted` UInt64 COMMENT 'Those that a correction made untrue',
    `acknowledged` UInt64 COMMENT 'Those that somebody acknowledged',
    `useful` UInt64 COMMENT 'Those with the feedback useful',
    `false_positives` UInt64 COMMENT 'Those with the feedback false_positive',
    `precision` Nullable(Float64) COMMENT 'useful / (useful + false_positives); empty without feedback'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'How good alerts are, by the feedback on them, per definition and owner'
AS
SELECT app_id, signal, owner, count() AS alerts, countIf(state = 'retracted') AS retracted, countIf(acknowledged_by != '') AS acknowledged,
    countIf(feedback = 'useful') AS useful, countIf(feedback = 'false_positive') AS false_positives, useful / nullIf(useful + false_positives, 0) AS precision
FROM `uptake`.`alerts`
GROUP BY app_id, signal, owner
ORDER BY app_id, signal, owner;

-- view annotations

CREATE OR REPLACE VIEW `uptake`.`annotations` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Id of the annotation',
    `at` DateTime64(3, 'UTC') COMMENT 'When it happened; for a whole day the start of that day in UTC',
    `whole_day` UInt8 COMMENT '1: it is about the day that at names, in whichever time zone days are looked at',
    `category` LowCardinality(String) COMMENT 'release, campaign, remap, incident or other',
    `text` String COMMENT 'What happened',
    `author` String COMMENT 'Who wrote it; empty: nobody was signed in',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was last changed'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'What happened on a day or at an instant, as people noted it: the marks on the time axes of the console'
AS
SELECT app_id, id, parseDateTime64BestEffortOrZero(JSONExtractString(value, 'annotation', 'at'), 3, 'UTC') AS at, toUInt8(JSONExtractBool(value, 'annotation', 'whole_day')) AS whole_day,
    JSONExtractString(value, 'annotation', 'category') AS category, JSONExtractString(value, 'annotation', 'text') AS text, author, written_at
FROM (-- The newest version of each note that is not deleted. Several shards may have versions of one.
SELECT app_id, kind, id, argMax(value, version) AS value, argMax(author, version) AS author, argMax(written_at, version) AS written_at
FROM `uptake_internal`.`notes`
GROUP BY app_id, kind, id
HAVING argMax(removed, version) = 0)
WHERE kind = 'annotation'
ORDER BY app_id, at, id;

-- view api_usage

CREATE OR REPLACE VIEW `uptake`.`api_usage` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `method` String COMMENT 'HTTP method',
    `route` String COMMENT 'Route, with placeholders for ids',
    `status_class` String COMMENT '2xx, 3xx, 4xx or 5xx',
    `calls` UInt64 COMMENT 'Number of calls',
    `people` UInt64 COMMENT 'People who called',
    `accounts` UInt64 COMMENT 'Accounts that called',
    `p50_ms` Nullable(Float64) COMMENT 'Median duration in milliseconds',
    `p95_ms` Nullable(Float64) COMMENT '95th percentile of the duration in milliseconds'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'API calls by method, route and class of status, with latency. Parameters: app, from, to, zone.'
AS
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT toLowCardinality({app:String}) AS app_id, toString(properties.method) AS method, toString(properties.route) AS route, concat(substring(toString(properties.status), 1, 1), 'xx') AS status_class,
    count() AS calls, uniqExactIf((actor_kind, actor_id), actor_kind != 'account') AS people, uniqExactIf(e.account_id, e.account_id != '') AS accounts,
    quantileExactInclusiveOrNull(0.5)(toFloat64OrNull(toString(properties.duration_ms))) AS p50_ms, quantileExactInclusiveOrNull(0.95)(toFloat64OrNull(toString(properties.duration_ms))) AS p95_ms
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, properties, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, properties, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, properties, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND kind = 'api_call' AND NOT (notEmpty(excluded_agents) AND user_id = '' AND anonymous_id = '' AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
)) AS e
WHERE account_id NOT IN excluded_accounts AND NOT (actor_kind = 'user' AND actor_id IN excluded_users)
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))
GROUP BY method, route, status_class
ORDER BY calls DESC, method, route, status_class;

-- view audit_counts

CREATE OR REPLACE VIEW `uptake`.`audit_counts` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `stage` String COMMENT 'gateway, enricher or rollup-writer',
    `counter` String COMMENT 'accepted, stored, duplicates, rejected or opted_out',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of received_at',
    `source_partition` Int32 COMMENT 'Partition of the log',
    `value` Int64 COMMENT 'Number of events'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'What each stage counted, by hour of receipt. enricher: as its transactions state; gateway and rollup-writer: the rows that are stored'
AS
SELECT app_id, stage, counter, hour, source_partition, sum(c.value) AS value
FROM
(
    SELECT app_id, 'enricher' AS stage, tupleElement(count, 1) AS counter, hour, source_partition, tupleElement(count, 2) AS value
    FROM (
        SELECT app_id, hour, source_partition,
            arrayJoin([('accepted', accepted), ('stored', stored), ('duplicates', duplicates), ('rejected', rejected), ('opted_out', opted_out)]) AS count
        FROM `uptake_internal`.`audit_blocks` FINAL)
    WHERE value != 0
    UNION ALL
    SELECT app_id, 'gateway', 'rejected', toStartOfHour(toDateTime(received_at, 'UTC')), source_partition, toInt64(1)
    FROM `uptake`.`rejected_events` WHERE stage = 'gateway'
    UNION ALL
    SELECT app_id, 'rollup-writer', 'rejected', toStartOfHour(toDateTime(received_at, 'UTC')), toInt32(raw_partition), toInt64(1)
    FROM `uptake`.`rejected_events` WHERE stage = 'enricher' AND field != 'links'
    UNION ALL
    SELECT app_id, 'rollup-writer', 'stored', toStartOfHour(toDateTime(received_at, 'UTC')), source_partition, toInt64(1)
    FROM `uptake`.`events`
) AS c
GROUP BY app_id, stage, counter, hour, source_partition;

-- view audit_positions

CREATE OR REPLACE VIEW `uptake_internal`.`audit_positions` ON CLUSTER `main`
(
    `raw_topic_id` LowCardinality(String) COMMENT 'Id of the raw topic',
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the enriched topic',
    `source_partition` Int32 COMMENT 'Partition of both',
    `raw_first` Int64 COMMENT 'First offset of raw that is counted',
    `raw_next` Int64 COMMENT 'Offset of raw after the last one that is counted',
    `source_offset` Int64 COMMENT 'Offset in enriched of the last record of counts'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'From and up to where each partition of the log is counted'
AS
SELECT raw_topic_id, source_topic_id, source_partition, min(raw_first) AS raw_first, max(raw_next) AS raw_next, max(source_offset) AS source_offset
FROM `uptake_internal`.`audit_blocks`
WHERE raw_topic_id != ''
GROUP BY raw_topic_id, source_topic_id, source_partition;

-- view audit_differences

CREATE OR REPLACE VIEW `uptake`.`audit_differences` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of received_at',
    `accepted` Int64 COMMENT 'Events that enrichers read',
    `stored` Int64 COMMENT 'Of those, passed on to be stored in events',
    `duplicates` Int64 COMMENT 'Of those, dropped as duplicates',
    `rejected` Int64 COMMENT 'Of those, rejected by the enricher',
    `opted_out` Int64 COMMENT 'Of those, dropped because the user or account opted out',
    `event_rows` Int64 COMMENT 'Rows of events, up to where their partition is counted',
    `rejected_rows` Int64 COMMENT 'Rows of rejected_events of stage enricher, up to where their partition is counted',
    `refused` Int64 COMMENT 'Rejected by the gateway, which did not accept them',
    `ahead` Int64 COMMENT 'Rows of events whose counts have not arrived yet',
    `stored_difference` Int64 COMMENT 'event_rows - stored',
    `rejected_difference` Int64 COMMENT 'rejected_rows - rejected',
    `difference` Int64 COMMENT 'accepted - event_rows - duplicates - rejected_rows - opted_out: 0 when nothing is lost or doubled'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The audit of the last 90 days by hour of receipt: accepted = event_rows + duplicates + rejected_rows + opted_out, or difference says how many are missing'
AS
SELECT app_id, hour,
    sum(c.accepted) AS accepted, sum(c.stored) AS stored, sum(c.duplicates) AS duplicates, sum(c.rejected) AS rejected, sum(c.opted_out) AS opted_out,
    sum(c.event_rows) AS event_rows, sum(c.rejected_rows) AS rejected_rows, sum(c.refused) AS refused, sum(c.ahead) AS ahead,
    event_rows - stored AS stored_difference,
    rejected_rows - rejected AS rejected_difference,
    accepted - event_rows - duplicates - rejected_rows - opted_out AS difference
FROM (
    SELECT app_id, hour, accepted, stored, duplicates, rejected, opted_out,
        toInt64(0) AS event_rows, toInt64(0) AS rejected_rows, toInt64(0) AS refused, toInt64(0) AS ahead
    FROM `uptake_internal`.`audit_blocks` FINAL
    WHERE hour >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT e.app_id, toStartOfHour(toDateTime(e.received_at, 'UTC')), 0, 0, 0, 0, 0,
        toInt64(e.raw_offset >= p.raw_first AND e.source_offset < p.source_offset), 0, 0, toInt64(e.source_offset > p.source_offset)
    FROM `uptake`.`events` AS e
    GLOBAL LEFT JOIN (SELECT source_topic_id, source_partition, min(raw_first) AS raw_first, max(source_offset) AS source_offset FROM `uptake_internal`.`audit_positions` GROUP BY source_topic_id, source_partition) AS p
        ON e.source_topic_id = p.source_topic_id AND e.source_partition = p.source_partition
    WHERE e.received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT r.app_id, toStartOfHour(toDateTime(r.received_at, 'UTC')), 0, 0, 0, 0, 0,
        0, toInt64(r.raw_offset >= p.raw_first AND r.raw_offset < p.raw_next), 0, 0
    FROM `uptake`.`rejected_events` AS r
    GLOBAL INNER JOIN (SELECT toInt64(source_partition) AS raw_partition, min(raw_first) AS raw_first, max(raw_next) AS raw_next FROM `uptake_internal`.`audit_positions` GROUP BY source_partition) AS p
        ON r.raw_partition = p.raw_partition
    WHERE r.stage = 'enricher' AND r.field != 'links' AND r.received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT app_id, toStartOfHour(toDateTime(received_at, 'UTC')), 0, 0, 0, 0, 0, 0, 0, 1, 0
    FROM `uptake`.`rejected_events`
    WHERE stage = 'gateway' AND received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
) AS c
GROUP BY app_id, hour;

-- view behaviour

CREATE OR REPLACE VIEW `uptake`.`behaviour` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` String COMMENT 'user, anonymous or account',
    `unit_id` String COMMENT 'User, visitor or account',
    `events` Int64 COMMENT 'Events of features in the range',
    `feature_shares` Map(String, Float64) COMMENT 'Share of each feature in these events; they add up to 1',
    `active_days` UInt64 COMMENT 'Days on which it used any feature',
    `frequency` Float64 COMMENT 'active_days / days of the range',
    `days_since_last` UInt32 COMMENT 'Days from the last such day to the last day of the range',
    `recency` Float64 COMMENT '1: used on the last day of the range; towards 0: only at its beginning'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Behaviour of each person or account as numbers between 0 and 1, to compare them by: shares of features, frequency and recency. Parameters: app, from, to, zone, unit (person or account).'
AS
SELECT toLowCardinality({app:String}) AS app_id, who.1 AS unit_kind, who.2 AS unit_id, toInt64(sum(u.n)) AS events,
    CAST(arrayMap(f -> (f.1, f.2 / events), arraySort(groupArray((u.feature_id, u.n)))), 'Map(String, Float64)') AS feature_shares,
    uniqExactArray(u.days) AS active_days, active_days / ({to:Date} - {from:Date}) AS frequency,
    toUInt32({to:Date} - 1 - max(arrayMax(u.days))) AS days_since_last, 1 - days_since_last / ({to:Date} - {from:Date}) AS recency
FROM
(
    SELECT if({unit:String} = 'account', ('account', account_id), (actor_kind, actor_id)) AS who, feature_id, sum(c.events) AS n, groupUniqArray(c.day) AS days
    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS c
    WHERE feature_id != '' AND NOT throwIf({unit:String} NOT IN ('person', 'account'), 'unit must be person or account') AND ({unit:String} = 'person' OR account_id != '')
    GROUP BY who, feature_id
) AS u
GROUP BY who
ORDER BY unit_kind, unit_id;

-- view behaviour_cluster_members

CREATE OR REPLACE VIEW `uptake`.`behaviour_cluster_members` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `unit_id` String COMMENT 'User or account',
    `cluster` UInt32 COMMENT 'Number of its cluster; 0: in none',
    `distance` Float64 COMMENT 'Distance of its behaviour from the mean of its cluster: the smallest is the most typical. Of cluster 0, from the mean of those in none',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'When rollup-writer cluster ran'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Which user or account is in which cluster of behaviour, as of the last rollup-writer cluster: a filter for other questions, as in actor_id IN (SELECT unit_id FROM behaviour_cluster_members WHERE app_id = ... AND unit_kind = ''user'' AND cluster = ...)'
AS
SELECT app_id, unit_kind, unit_id, cluster, distance, computed_at
FROM `uptake_internal`.`behaviour_cluster_members` FINAL
WHERE (app_id, unit_kind, computed_at) GLOBAL IN (SELECT app_id, unit_kind, max(computed_at) FROM `uptake_internal`.`behaviour_clusters` GROUP BY app_id, unit_kind)
ORDER BY app_id, unit_kind, cluster, unit_id;

-- view behaviour_clusters

CREATE OR REPLACE VIEW `uptake`.`behaviour_clusters` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` LowCardinality(String) COMMENT 'user or account',
    `cluster` UInt32 COMMENT 'Number of the cluster, the largest is 1; 0: those in no cluster. Another run may number them otherwise',
    `units` UInt64 COMMENT 'How many users or accounts are in it',
    `share` Float64 COMMENT 'Share of all that were grouped',
    `description` String COMMENT 'What sets it apart from the rest, in words',
    `feature_shares` Map(String, Float64) COMMENT 'Mean share of each feature in the usage of its members',
    `rest_feature_shares` Map(String, Float64) COMMENT 'The same of all others that were grouped',
    `frequency` Float64 COMMENT 'Mean share of the days of the range with usage',
    `days_since_last` Float64 COMMENT 'Mean number of days from the last usage to the last day of the range',
    `events` Float64 COMMENT 'Mean number of events of features in the range',
    `from_day` Date COMMENT 'First day of the range',
    `to_day` Date COMMENT 'Day after the last one',
    `zone` LowCardinality(String) COMMENT 'Time zone of the days',
    `units_looked_at` UInt64 COMMENT 'Users or accounts with usage of features in the range',
    `units_left_out` UInt64 COMMENT 'Those of them with fewer than min_events events, which are not grouped',
    `units_sampled` UInt64 COMMENT 'Those that the clusters were found from; the others were assigned to the nearest',
    `min_events` UInt32 COMMENT 'Fewest events of a unit that is grouped',
    `min_points` UInt32 COMMENT 'How many units within eps make a core',
    `eps` Float64 COMMENT 'Distance within which units are neighbours',
    `seed` UInt64 COMMENT 'What the sample was drawn with',
    `computed_at` DateTime64(3, 'UTC') COMMENT 'When rollup-writer cluster ran'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Clusters of users and of accounts by how they use the product, and what sets each apart, as of the last rollup-writer cluster'
AS
SELECT app_id, unit_kind, cluster, units, units / sum(units) OVER (PARTITION BY app_id, unit_kind) AS share, description, feature_shares, rest_feature_shares, frequency, days_since_last, events,
    from_day, to_day, zone, units_looked_at, units_left_out, units_sampled, min_events, min_points, eps, seed, computed_at
FROM `uptake_internal`.`behaviour_clusters` FINAL
WHERE (app_id, unit_kind, computed_at) GLOBAL IN (SELECT app_id, unit_kind, max(computed_at) FROM `uptake_internal`.`behaviour_clusters` GROUP BY app_id, unit_kind)
ORDER BY app_id, unit_kind, cluster;

-- view boards

CREATE OR REPLACE VIEW `uptake`.`boards` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Id of the board',
    `name` String COMMENT 'Name of the board',
    `mail` String COMMENT 'Schedule by which it is mailed, JSON; empty: it is not',
    `author` String COMMENT 'Who named it last; empty: nobody was signed in',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was last changed'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Boards of the console: has(boards, id) of saved_questions says what is on one'
AS
SELECT app_id, id, JSONExtractString(value, 'board', 'name') AS name, JSONExtractRaw(value, 'board', 'mail') AS mail, author, written_at
FROM (-- The newest version of each note that is not deleted. Several shards may have versions of one.
SELECT app_id, kind, id, argMax(value, version) AS value, argMax(author, version) AS author, argMax(written_at, version) AS written_at
FROM `uptake_internal`.`notes`
GROUP BY app_id, kind, id
HAVING argMax(removed, version) = 0)
WHERE kind = 'board'
ORDER BY app_id, name, id;

-- view catalog_features

CREATE OR REPLACE VIEW `uptake`.`catalog_features` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature',
    `feature_name` String COMMENT 'Name of the feature',
    `module_id` String COMMENT 'Module of the feature',
    `module_name` String COMMENT 'Name of the module',
    `product_id` String COMMENT 'Product of the module',
    `product_name` String COMMENT 'Name of the product',
    `owner` String COMMENT 'Team that is responsible for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64 COMMENT 'Version of the catalog',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When that version was applied'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Features, modules and products of the catalog in force'
AS
SELECT app_id, feature_id, feature_name, module_id, module_name, product_id, product_name, owner, purpose, kind, status, catalog_version, applied_at
FROM `uptake_internal`.`catalog_features` FINAL
WHERE removed = 0;

-- view catalog_features_history

CREATE OR REPLACE VIEW `uptake`.`catalog_features_history` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature',
    `feature_name` String COMMENT 'Name of the feature',
    `module_id` String COMMENT 'Module of the feature',
    `module_name` String COMMENT 'Name of the module',
    `product_id` String COMMENT 'Product of the module',
    `product_name` String COMMENT 'Name of the product',
    `owner` String COMMENT 'Team that is responsible for it',
    `purpose` String COMMENT 'What a user gets from it',
    `kind` LowCardinality(String) COMMENT 'core, onboarding, upsell, risk or friction',
    `status` LowCardinality(String) COMMENT 'planned, active or deprecated',
    `catalog_version` Int64 COMMENT 'Version of the catalog',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When that version was applied',
    `removed` UInt8 COMMENT '1: this version removed the feature'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Features, modules and products of every version of the catalog'
AS
SELECT app_id, feature_id, feature_name, module_id, module_name, product_id, product_name, owner, purpose, kind, status, catalog_version, applied_at, removed
FROM `uptake_internal`.`catalog_features_history` FINAL;

-- view catalog_metrics

CREATE OR REPLACE VIEW `uptake`.`catalog_metrics` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` String COMMENT 'Name of the metric events that report it',
    `metric_id` String COMMENT 'Metric',
    `metric_name` String COMMENT 'Name of the metric',
    `semantics` LowCardinality(String) COMMENT 'delta, gauge or cumulative',
    `unit` String COMMENT 'Unit of its values',
    `owner` String COMMENT 'Team that is responsible for it',
    `purpose` String COMMENT 'What it is for',
    `catalog_version` Int64 COMMENT 'Version of the catalog',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When that version was applied'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Metrics of the catalog in force, by the names of their events'
AS
SELECT app_id, event, metric_id, metric_name, semantics, unit, owner, purpose, catalog_version, applied_at
FROM `uptake_internal`.`catalog_metrics` FINAL
WHERE removed = 0;

-- view events_now

CREATE OR REPLACE VIEW `uptake`.`events_now` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` LowCardinality(String) COMMENT 'Event name',
    `kind` LowCardinality(String) COMMENT 'track, page, screen or api_call',
    `message_id` String COMMENT 'Unique within the app',
    `event_time` DateTime64(6, 'UTC') COMMENT 'The instant it counts at',
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received it',
    `quantity` Int64 COMMENT 'How many actions it stands for',
    `properties` JSON(max_dynamic_paths=256) COMMENT 'properties.key reads one',
    `context` String COMMENT 'JSON text as sent',
    `conflicts` String COMMENT 'JSON text of values whose type does not fit the key',
    `session_id` String COMMENT 'Session id of the client',
    `protocol` LowCardinality(String) COMMENT 'Protocol it came by',
    `library` LowCardinality(String) COMMENT 'name/version of the SDK',
    `user_agent` String COMMENT 'User agent of the request',
    `country` LowCardinality(String) COMMENT 'Country of the client, two letters of ISO 3166-1; empty: not known',
    `browser` LowCardinality(String) COMMENT 'Browser; empty: none or not known',
    `os` LowCardinality(String) COMMENT 'Operating system of the client; empty: not known',
    `device_class` LowCardinality(String) COMMENT 'desktop, mobile, tablet, tv, console, wearable or bot; empty: not known',
    `referrer` LowCardinality(String) COMMENT 'Host of the page that led to this one; empty: none, or the same host',
    `utm_source` LowCardinality(String) COMMENT 'Source of the campaign; empty: none',
    `utm_medium` LowCardinality(String) COMMENT 'Medium of the campaign; empty: none',
    `utm_campaign` LowCardinality(String) COMMENT 'Name of the campaign; empty: none',
    `user_id` String COMMENT 'User as the call named it',
    `anonymous_id` String COMMENT 'Anonymous id as the call named it',
    `source_partition` Int32 COMMENT 'Partition of the log',
    `source_offset` Int64 COMMENT 'Offset in it',
    `actor_id` String COMMENT 'User id or anonymous id',
    `actor_kind` String COMMENT 'user, anonymous, account or erased',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `account_source` String COMMENT 'How the account was found: event, membership or none',
    `role` String COMMENT 'Role of the actor in the account',
    `feature_id` String COMMENT 'Feature; empty: unmapped',
    `module_id` String COMMENT 'Module of the feature',
    `product_id` String COMMENT 'Product of the module'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage events with the actor, account, role and feature that each counts for today: after identity links, moves of accounts, catalog changes and erasures. Its sums equal user_feature_daily. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, kind, message_id, event_time, received_at, quantity, properties, context, conflicts, session_id, protocol, library, user_agent, country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign, user_id, anonymous_id, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, kind, message_id, event_time, received_at, quantity, properties, context, conflicts, session_id, protocol, library, user_agent, country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign, user_id, anonymous_id, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, kind, message_id, event_time, received_at, quantity, properties, context, conflicts, session_id, protocol, library, user_agent, country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign, user_id, anonymous_id, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
));

-- view excluded_usage

CREATE OR REPLACE VIEW `uptake`.`excluded_usage` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `reason` String COMMENT 'Definition that leaves it out; usage that several leave out counts for each',
    `people` UInt64 COMMENT 'People left out',
    `accounts` UInt64 COMMENT 'Accounts left out',
    `events` Int64 COMMENT 'Events left out'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'What the definitions leave out of a range, by reason. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, x.reason AS reason, uniqExact(u.actor_kind, u.actor_id) AS people, uniqExactIf(u.account_id, u.account_id != '') AS accounts, toInt64(sum(u.events)) AS events
FROM
(
    SELECT account_id, actor_id, actor_kind, events, arrayJoin([(actor_kind, actor_id), ('account', account_id), ('role', role)]) AS part
    FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
    WHERE actor_kind NOT IN ('account', 'erased')
) AS u
INNER JOIN (SELECT kind, id, min(why) AS reason FROM (WITH
    (SELECT arraySort(groupArrayIf(value, use = 'exclude' AND match = 'user_agent')) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS excluded_agents
SELECT kind, id, concat('user_agent ', agent) AS why
FROM (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id, l.agent AS agent
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u
INNER JOIN (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)) AS l ON l.anonymous_id = u.anonymous_id AND l.user_id = u.named)
UNION ALL
SELECT match AS kind, value AS id, concat(match, ' ', value) AS why
FROM (SELECT toString(use) AS use, toString(match) AS match, value FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})))
WHERE use = 'exclude' AND match IN ('user', 'account', 'role')
UNION ALL
SELECT t.kind, t.id, if(i.match = 'mail_domain', concat('mail_domain ', i.value), concat(i.match, ' ', i.key, '=', i.value))
FROM
(
    SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != ''
    GROUP BY kind, id, trait
) AS t
INNER JOIN
(
    SELECT toString(match) AS match, key, value, if(match = 'account_trait', 'account', 'user') AS kind, if(match = 'mail_domain', 'email', key) AS trait
    FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))
    WHERE use = 'exclude' AND match IN ('mail_domain', 'trait', 'account_trait')
) AS i ON i.kind = t.kind AND i.trait = t.trait
WHERE if(i.match = 'mail_domain', endsWith(lower(t.text), concat('@', lower(i.value))), t.text = i.value)) GROUP BY kind, id) AS x ON x.kind = u.part.1 AND x.id = u.part.2
GROUP BY reason
ORDER BY events DESC, reason;

-- view exclusions

CREATE OR REPLACE VIEW `uptake`.`exclusions` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `kind` LowCardinality(String) COMMENT 'user, anonymous, account or role',
    `id` String COMMENT 'User, anonymous id, account or role that is left out',
    `reason` String COMMENT 'Definition that says so'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Who is left out of all views about usage, and why, as of now. Parameters: app.'
AS
SELECT toLowCardinality({app:String}) AS app_id, kind, id, min(why) AS reason
FROM (WITH
    (SELECT arraySort(groupArrayIf(value, use = 'exclude' AND match = 'user_agent')) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS excluded_agents
SELECT kind, id, concat('user_agent ', agent) AS why
FROM (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id, l.agent AS agent
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u
INNER JOIN (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)) AS l ON l.anonymous_id = u.anonymous_id AND l.user_id = u.named)
UNION ALL
SELECT match AS kind, value AS id, concat(match, ' ', value) AS why
FROM (SELECT toString(use) AS use, toString(match) AS match, value FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})))
WHERE use = 'exclude' AND match IN ('user', 'account', 'role')
UNION ALL
SELECT t.kind, t.id, if(i.match = 'mail_domain', concat('mail_domain ', i.value), concat(i.match, ' ', i.key, '=', i.value))
FROM
(
    SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != ''
    GROUP BY kind, id, trait
) AS t
INNER JOIN
(
    SELECT toString(match) AS match, key, value, if(match = 'account_trait', 'account', 'user') AS kind, if(match = 'mail_domain', 'email', key) AS trait
    FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))
    WHERE use = 'exclude' AND match IN ('mail_domain', 'trait', 'account_trait')
) AS i ON i.kind = t.kind AND i.trait = t.trait
WHERE if(i.match = 'mail_domain', endsWith(lower(t.text), concat('@', lower(i.value))), t.text = i.value))
GROUP BY kind, id
ORDER BY kind, id;

-- view feature_first_use

CREATE OR REPLACE VIEW `uptake`.`feature_first_use` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user, or anonymous for a visitor who is not known to be a user',
    `actor_id` String COMMENT 'User id or anonymous id',
    `feature_id` String COMMENT 'Feature of the catalog',
    `first_hour` DateTime('UTC') COMMENT 'Hour of the first use',
    `last_hour` DateTime('UTC') COMMENT 'Hour of the last use before the end of the range',
    `days_used` UInt64 COMMENT 'Days of the zone on which it was used',
    `events` Int64 COMMENT 'Events of it',
    `hours_to_first_use` Int64 COMMENT 'Hours from the first usage of anything to the first use',
    `abandoned` UInt8 COMMENT '1: used on one day alone, and not in the 28 days after it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'People who used a feature for the first time ever in a range, and what became of it up to the end of the range. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, feature_id, first_hour, last_hour, days_used, events, hours_to_first_use, abandoned
FROM (-- Each feature of each person: the first and the last use, of all time up to the end
SELECT actor_kind, actor_id, feature_id, min(u.hour) AS first_hour, max(u.hour) AS last_hour, uniqExact(u.day) AS days_used, toInt64(sum(u.events)) AS events,
    toInt64(dateDiff('hour', any(u.first_seen), first_hour)) AS hours_to_first_use, toUInt8(days_used = 1 AND max(u.day) + 28 < {to:Date}) AS abandoned
FROM
(
    SELECT actor_kind, actor_id, feature_id, hour, day, events, min(hour) OVER (PARTITION BY actor_kind, actor_id) AS first_seen
    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
) AS u
WHERE feature_id != ''
GROUP BY actor_kind, actor_id, feature_id
HAVING min(u.day) >= {from:Date});

-- view feature_first_use_summary

CREATE OR REPLACE VIEW `uptake`.`feature_first_use_summary` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature of the catalog',
    `new_people` UInt64 COMMENT 'People who used it for the first time ever',
    `abandoned_people` UInt64 COMMENT 'Those of them who used it on one day alone, and not in the 28 days after it',
    `median_hours_to_first_use` Float64 COMMENT 'Median of the hours from the first usage of anything to the first use'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'First use of each feature in a range: how many people, how long it took them, how many abandoned it. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, feature_id, count() AS new_people, countIf(abandoned) AS abandoned_people, quantileExactInclusive(0.5)(hours_to_first_use) AS median_hours_to_first_use
FROM (-- Each feature of each person: the first and the last use, of all time up to the end
SELECT actor_kind, actor_id, feature_id, min(u.hour) AS first_hour, max(u.hour) AS last_hour, uniqExact(u.day) AS days_used, toInt64(sum(u.events)) AS events,
    toInt64(dateDiff('hour', any(u.first_seen), first_hour)) AS hours_to_first_use, toUInt8(days_used = 1 AND max(u.day) + 28 < {to:Date}) AS abandoned
FROM
(
    SELECT actor_kind, actor_id, feature_id, hour, day, events, min(hour) OVER (PARTITION BY actor_kind, actor_id) AS first_seen
    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
) AS u
WHERE feature_id != ''
GROUP BY actor_kind, actor_id, feature_id
HAVING min(u.day) >= {from:Date})
GROUP BY feature_id
ORDER BY feature_id;

-- view fit

CREATE OR REPLACE VIEW `uptake`.`fit` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `saw_signup_page` UInt64 COMMENT 'People who first saw a sign-up page in the range',
    `signed_up_after_page` UInt64 COMMENT 'Those of them who signed up at or after it, whenever',
    `signup_rate` Nullable(Float64) COMMENT 'signed_up_after_page / saw_signup_page',
    `mean_seconds_to_signup` Nullable(Float64) COMMENT 'Mean time from the page to the sign-up',
    `median_seconds_to_signup` Nullable(Float64) COMMENT 'Median of it',
    `signups` UInt64 COMMENT 'People who first signed up in the range',
    `activated` UInt64 COMMENT 'Those of them with an activation event at or after it, whenever',
    `activation_rate` Nullable(Float64) COMMENT 'activated / signups',
    `median_seconds_to_activation` Nullable(Float64) COMMENT 'Median time from sign-up to activation',
    `new_subscribers` UInt64 COMMENT 'People who first subscribed in the range',
    `new_paying` UInt64 COMMENT 'People who first paid in the range',
    `converted` UInt64 COMMENT 'Of the signups those who paid at or after it, whenever',
    `free_to_paid_rate` Nullable(Float64) COMMENT 'converted / signups',
    `median_seconds_to_paid` Nullable(Float64) COMMENT 'Median time from sign-up to payment'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Product-market fit of a range: sign-up rate, activation, free-to-paid conversion, and how long they take. Parameters: app, from, to, zone.'
AS
WITH at -> ifNull(toDate(at, {zone:String}) >= {from:Date} AND toDate(at, {zone:String}) < {to:Date}, 0) AS within, (a, b) -> ifNull(b >= a, 0) AS reached,
    (a, b) -> (toUnixTimestamp64Micro(assumeNotNull(b)) - toUnixTimestamp64Micro(assumeNotNull(a))) / 1000000 AS seconds
SELECT toLowCardinality({app:String}) AS app_id, countIf(within(signup_page_at)) AS saw_signup_page, countIf(within(signup_page_at) AND reached(signup_page_at, signup_at)) AS signed_up_after_page,
    signed_up_after_page / nullIf(saw_signup_page, 0) AS signup_rate,
    avgOrNullIf(seconds(signup_page_at, signup_at), within(signup_page_at) AND reached(signup_page_at, signup_at)) AS mean_seconds_to_signup,
    quantileExactInclusiveOrNullIf(0.5)(seconds(signup_page_at, signup_at), within(signup_page_at) AND reached(signup_page_at, signup_at)) AS median_seconds_to_signup,
    countIf(within(signup_at)) AS signups, countIf(within(signup_at) AND reached(signup_at, activation_at)) AS activated, activated / nullIf(signups, 0) AS activation_rate,
    quantileExactInclusiveOrNullIf(0.5)(seconds(signup_at, activation_at), within(signup_at) AND reached(signup_at, activation_at)) AS median_seconds_to_activation,
    countIf(within(subscription_at)) AS new_subscribers, countIf(within(paid_at)) AS new_paying,
    countIf(within(signup_at) AND reached(signup_at, paid_at)) AS converted, converted / nullIf(signups, 0) AS free_to_paid_rate,
    quantileExactInclusiveOrNullIf(0.5)(seconds(signup_at, paid_at), within(signup_at) AND reached(signup_at, paid_at)) AS median_seconds_to_paid
FROM (-- Of each person the first event of any kind and the first one of each milestone, of
WITH
    (SELECT groupArray((use, concat(match, ':', value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))
     WHERE use IN ('signup_page', 'signup', 'activation', 'value', 'subscription', 'paid')) AS defined,
    (use, feature, event) -> has(defined, (use, concat('feature:', feature))) OR has(defined, (use, concat('event:', event))) AS matches
SELECT actor_kind, actor_id, argMax(e.account_id, (e.event_time, e.source_partition, e.source_offset)) AS account_id, min(e.event_time) AS first_seen_at,
    minOrNullIf(e.event_time, matches('signup_page', e.feature_id, e.event)) AS signup_page_at, minOrNullIf(e.event_time, matches('signup', e.feature_id, e.event)) AS signup_at,
    minOrNullIf(e.event_time, matches('activation', e.feature_id, e.event)) AS activation_at, minOrNullIf(e.event_time, matches('value', e.feature_id, e.event)) AS value_at,
    minOrNullIf(e.event_time, matches('subscription', e.feature_id, e.event)) AS subscription_at, minOrNullIf(e.event_time, matches('paid', e.feature_id, e.event)) AS paid_at
FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= toDate('2100-01-01') + 1
            AND toDate(event_time, 'UTC') >= toDate('1970-01-03') AND toDate(event_time, 'UTC') < toDate('2100-01-01')
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime(toDate('2100-01-01'), 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS e
GROUP BY actor_kind, actor_id);

-- view fit_people

CREATE OR REPLACE VIEW `uptake`.`fit_people` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user, or anonymous for a visitor who is not known to be a user',
    `actor_id` String COMMENT 'User id or anonymous id',
    `account_id` String COMMENT 'Account of the last event; empty: none is known',
    `first_seen_at` DateTime64(6, 'UTC') COMMENT 'First event of any kind, also as a visitor',
    `signup_page_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First view of a sign-up page; NULL: never',
    `signup_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First sign-up',
    `activation_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation event',
    `value_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First value event',
    `subscription_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First subscription',
    `paid_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First payment'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The first event and the first of each defined milestone of every person, of all time. Parameters: app.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, account_id, first_seen_at, signup_page_at, signup_at, activation_at, value_at, subscription_at, paid_at
FROM (-- Of each person the first event of any kind and the first one of each milestone, of
WITH
    (SELECT groupArray((use, concat(match, ':', value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))
     WHERE use IN ('signup_page', 'signup', 'activation', 'value', 'subscription', 'paid')) AS defined,
    (use, feature, event) -> has(defined, (use, concat('feature:', feature))) OR has(defined, (use, concat('event:', event))) AS matches
SELECT actor_kind, actor_id, argMax(e.account_id, (e.event_time, e.source_partition, e.source_offset)) AS account_id, min(e.event_time) AS first_seen_at,
    minOrNullIf(e.event_time, matches('signup_page', e.feature_id, e.event)) AS signup_page_at, minOrNullIf(e.event_time, matches('signup', e.feature_id, e.event)) AS signup_at,
    minOrNullIf(e.event_time, matches('activation', e.feature_id, e.event)) AS activation_at, minOrNullIf(e.event_time, matches('value', e.feature_id, e.event)) AS value_at,
    minOrNullIf(e.event_time, matches('subscription', e.feature_id, e.event)) AS subscription_at, minOrNullIf(e.event_time, matches('paid', e.feature_id, e.event)) AS paid_at
FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= toDate('2100-01-01') + 1
            AND toDate(event_time, 'UTC') >= toDate('1970-01-03') AND toDate(event_time, 'UTC') < toDate('2100-01-01')
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime(toDate('2100-01-01'), 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS e
GROUP BY actor_kind, actor_id);

-- view friction

CREATE OR REPLACE VIEW `uptake`.`friction` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `step` String COMMENT 'Feature, or event: and the name of an unmapped event',
    `events` UInt64 COMMENT 'Events of it',
    `people` UInt64 COMMENT 'People who met it',
    `accounts` UInt64 COMMENT 'Accounts that met it',
    `people_repeating` UInt64 COMMENT 'People who met it three times within ten seconds'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Friction: events of features of kind friction, and those defined as friction, with rage repeats. Parameters: app, from, to, zone.'
AS
WITH
    (SELECT groupArray(feature_id) FROM `uptake_internal`.`catalog_features` FINAL WHERE app_id = {app:String} AND kind = 'friction' AND removed = 0) AS marked,
    (SELECT groupArray(concat(match, ':', value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})) WHERE use = 'friction') AS defined
SELECT toLowCardinality({app:String}) AS app_id, step, toUInt64(sum(n)) AS events, count() AS people, uniqExactArray(accounts_of) AS accounts,
    countIf(arrayExists((t, third) -> third - t <= 10000000, arraySlice(times, 1, greatest(n, 2) - 2), arraySlice(times, 3))) AS people_repeating
FROM
(
    SELECT if(feature_id != '', feature_id, concat('event:', event)) AS step, actor_kind, actor_id, count() AS n, arraySort(groupArray(toUnixTimestamp64Micro(event_time))) AS times,
        groupUniqArrayIf(account_id, account_id != '') AS accounts_of
    FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    WHERE has(marked, feature_id) OR has(defined, concat('feature:', feature_id)) OR has(defined, concat('event:', event))
    GROUP BY step, actor_kind, actor_id
)
GROUP BY step
ORDER BY events DESC, step;

-- view funnel

CREATE OR REPLACE VIEW `uptake`.`funnel` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `step` UInt32 COMMENT 'Number of the step, from 1',
    `step_name` String COMMENT 'Feature, or event: and the name of an event',
    `people` UInt64 COMMENT 'People who came this far',
    `conversion_from_first` Float64 COMMENT 'Share of those of the first step',
    `conversion_from_previous` Nullable(Float64) COMMENT 'Share of those of the step before',
    `median_seconds_from_previous` Nullable(Float64) COMMENT 'Median time from the step before',
    `p90_seconds_from_previous` Nullable(Float64) COMMENT '90th percentile of the time from the step before'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Ordered funnel of people: all steps in order within window seconds of the first; other events may lie between. Parameters: app, from, to, zone, steps (array of feature ids or event:<name>), window (seconds).'
AS
SELECT app_id, step, step_name, reached AS people, conversion_from_first, conversion_from_previous, median_seconds_from_previous, p90_seconds_from_previous
FROM (SELECT toLowCardinality({app:String}) AS app_id, value, toUInt32(step) AS step, {steps:Array(String)}[step] AS step_name, countIf(level >= step) AS reached, reached / countIf(level >= 1) AS conversion_from_first,
    reached / nullIf(countIf(level + 1 >= step), 0) AS conversion_from_previous,
    quantileExactInclusiveOrNullIf(0.5)(seconds, step > 1 AND length(step_times) >= step) AS median_seconds_from_previous,
    quantileExactInclusiveOrNullIf(0.9)(seconds, step > 1 AND length(step_times) >= step) AS p90_seconds_from_previous
FROM
(
    SELECT value, level, step_times, step, if(step > 1, (toUnixTimestamp64Micro(step_times[step]) - toUnixTimestamp64Micro(step_times[step - 1])) / 1000000, 0) AS seconds
    FROM (-- How far each one came (windowFunnel, exact for steps at the same instant), and
SELECT who.1 AS unit_kind, who.2 AS unit_id, level, arrayMap(t -> fromUnixTimestamp64Micro(t, 'UTC'), times) AS step_times,
    arrayFirst(e -> e.1 = times[1] AND has(e.5, 1), entries).6 AS value
FROM
(
    SELECT if('person' = 'account', ('account', account_id), (actor_kind, actor_id)) AS who,
        windowFunnel({window:UInt64} * 1000000, 'strict_once')(toUInt64(toUnixTimestamp64Micro(event_time)),
            has(ixs, 1), has(ixs, 2), has(ixs, 3), has(ixs, 4), has(ixs, 5), has(ixs, 6), has(ixs, 7), has(ixs, 8)) AS level,
        arraySort(e -> (e.1, e.2, e.3, e.4), groupArray((toUnixTimestamp64Micro(event_time), arrayMin(ixs), source_partition, source_offset, ixs, label))) AS entries,
        arrayFold((acc, x) -> if(
                x.2 != 1 AND (empty(acc.1[x.2 - 1]) OR x.1 - acc.1[x.2 - 1][1] > {window:UInt64} * 1000000), acc,
                (arrayMap((c, j) -> if(j = x.2, if(j = 1, [x.1], arrayPushBack(acc.1[j - 1], x.1)), c), acc.1, arrayEnumerate(acc.1)),
                 if(x.2 > length(acc.2), if(x.2 = 1, [x.1], arrayPushBack(acc.1[x.2 - 1], x.1)), acc.2))),
            arrayFlatten(arrayMap(e -> arrayMap(i -> (e.1, i), arrayReverseSort(e.5)), entries)),
            (arrayMap(s -> CAST([], 'Array(Int64)'), {steps:Array(String)}), CAST([], 'Array(Int64)'))).2 AS times
    FROM
    (
        SELECT u.actor_kind AS actor_kind, u.actor_id AS actor_id, u.account_id AS account_id, u.event_time AS event_time, u.source_partition AS source_partition, u.source_offset AS source_offset,
            '' AS label,
            arrayFilter((i, s) -> s = u.feature_id OR s = concat('event:', u.event), arrayEnumerate({steps:Array(String)}), {steps:Array(String)}) AS ixs
        FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
        WHERE NOT throwIf('person' NOT IN ('person', 'account'), 'unit must be person or account') AND ('person' = 'person' OR account_id != '') AND 1 AND NOT throwIf(length({steps:Array(String)}) NOT BETWEEN 1 AND 8, 'a funnel has 1 to 8 steps') AND notEmpty(ixs)
    )
    GROUP BY who
)
WHERE level > 0)
    ARRAY JOIN arrayEnumerate({steps:Array(String)}) AS step
)
GROUP BY value, step
ORDER BY value, step);

-- view funnel_by

CREATE OR REPLACE VIEW `uptake`.`funnel_by` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `value` String COMMENT 'Value of the dimension at the first step; empty: none',
    `step` UInt32 COMMENT 'Number of the step, from 1',
    `step_name` String COMMENT 'Feature, or event: and the name of an event',
    `reached` UInt64 COMMENT 'People or accounts who came this far',
    `conversion_from_first` Float64 COMMENT 'Share of those of the first step',
    `conversion_from_previous` Nullable(Float64) COMMENT 'Share of those of the step before',
    `median_seconds_from_previous` Nullable(Float64) COMMENT 'Median time from the step before',
    `p90_seconds_from_previous` Nullable(Float64) COMMENT '90th percentile of the time from the step before'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Ordered funnel of people or accounts, broken down by a dimension at the first step. Parameters: app, from, to, zone, steps, window (seconds), unit (person or account), by (as active_users_by; empty: none).'
AS
SELECT toLowCardinality({app:String}) AS app_id, value, toUInt32(step) AS step, {steps:Array(String)}[step] AS step_name, countIf(level >= step) AS reached, reached / countIf(level >= 1) AS conversion_from_first,
    reached / nullIf(countIf(level + 1 >= step), 0) AS conversion_from_previous,
    quantileExactInclusiveOrNullIf(0.5)(seconds, step > 1 AND length(step_times) >= step) AS median_seconds_from_previous,
    quantileExactInclusiveOrNullIf(0.9)(seconds, step > 1 AND length(step_times) >= step) AS p90_seconds_from_previous
FROM
(
    SELECT value, level, step_times, step, if(step > 1, (toUnixTimestamp64Micro(step_times[step]) - toUnixTimestamp64Micro(step_times[step - 1])) / 1000000, 0) AS seconds
    FROM (-- How far each one came (windowFunnel, exact for steps at the same instant), and
SELECT who.1 AS unit_kind, who.2 AS unit_id, level, arrayMap(t -> fromUnixTimestamp64Micro(t, 'UTC'), times) AS step_times,
    arrayFirst(e -> e.1 = times[1] AND has(e.5, 1), entries).6 AS value
FROM
(
    SELECT if({unit:String} = 'account', ('account', account_id), (actor_kind, actor_id)) AS who,
        windowFunnel({window:UInt64} * 1000000, 'strict_once')(toUInt64(toUnixTimestamp64Micro(event_time)),
            has(ixs, 1), has(ixs, 2), has(ixs, 3), has(ixs, 4), has(ixs, 5), has(ixs, 6), has(ixs, 7), has(ixs, 8)) AS level,
        arraySort(e -> (e.1, e.2, e.3, e.4), groupArray((toUnixTimestamp64Micro(event_time), arrayMin(ixs), source_partition, source_offset, ixs, label))) AS entries,
        arrayFold((acc, x) -> if(
                x.2 != 1 AND (empty(acc.1[x.2 - 1]) OR x.1 - acc.1[x.2 - 1][1] > {window:UInt64} * 1000000), acc,
                (arrayMap((c, j) -> if(j = x.2, if(j = 1, [x.1], arrayPushBack(acc.1[j - 1], x.1)), c), acc.1, arrayEnumerate(acc.1)),
                 if(x.2 > length(acc.2), if(x.2 = 1, [x.1], arrayPushBack(acc.1[x.2 - 1], x.1)), acc.2))),
            arrayFlatten(arrayMap(e -> arrayMap(i -> (e.1, i), arrayReverseSort(e.5)), entries)),
            (arrayMap(s -> CAST([], 'Array(Int64)'), {steps:Array(String)}), CAST([], 'Array(Int64)'))).2 AS times
    FROM
    (
        SELECT u.actor_kind AS actor_kind, u.actor_id AS actor_id, u.account_id AS account_id, u.event_time AS event_time, u.source_partition AS source_partition, u.source_offset AS source_offset,
            multiIf({by:String} = 'product', u.product_id, {by:String} = 'module', u.module_id, {by:String} = 'feature', u.feature_id, {by:String} = 'account', u.account_id, {by:String} = 'role', u.role, trait.value) AS label,
            arrayFilter((i, s) -> s = u.feature_id OR s = concat('event:', u.event), arrayEnumerate({steps:Array(String)}), {steps:Array(String)}) AS ixs
        FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
        LEFT ANY JOIN
(
    SELECT subject AS id, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS value
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact = substringIndex({by:String}, '.', 1) AND object != '' AND substringIndex(object, '\0', 1) = substring({by:String}, position({by:String}, '.') + 1)
    GROUP BY id
) AS trait ON trait.id = multiIf(startsWith({by:String}, 'account.'), u.account_id, u.actor_kind = 'user', u.actor_id, '')
        WHERE NOT throwIf({unit:String} NOT IN ('person', 'account'), 'unit must be person or account') AND ({unit:String} = 'person' OR account_id != '') AND NOT throwIf({by:String} NOT IN ('', 'product', 'module', 'feature', 'account', 'role') AND NOT startsWith({by:String}, 'account.') AND NOT startsWith({by:String}, 'user.'), 'by must be product, module, feature, account, role, account.<trait>, user.<trait> or empty') AND NOT throwIf(length({steps:Array(String)}) NOT BETWEEN 1 AND 8, 'a funnel has 1 to 8 steps') AND notEmpty(ixs)
    )
    GROUP BY who
)
WHERE level > 0)
    ARRAY JOIN arrayEnumerate({steps:Array(String)}) AS step
)
GROUP BY value, step
ORDER BY value, step;

-- view funnel_options

CREATE OR REPLACE VIEW `uptake`.`funnel_options` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `value` String COMMENT 'Value of the dimension at the first step; empty: none',
    `step` UInt32 COMMENT 'Number of the step, from 1',
    `step_name` String COMMENT 'Feature, or event: and the name of an event; empty for any order, where step n is the n-th different one',
    `reached` UInt64 COMMENT 'People or accounts who came this far',
    `conversion_from_first` Float64 COMMENT 'Share of those of the first step',
    `conversion_from_previous` Nullable(Float64) COMMENT 'Share of those of the step before',
    `median_seconds_from_previous` Nullable(Float64) COMMENT 'Median time from the step before',
    `p90_seconds_from_previous` Nullable(Float64) COMMENT '90th percentile of the time from the step before'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Funnel of people or accounts with a choice of order and with events that end a try. Parameters: app, from, to, zone, steps, window (seconds), unit (person or account), by (as active_users_by; empty: none), ordering (ordered: other events may lie between; strict: none may; any: the steps in any order), without (array of feature ids or event:<name>; an event of these ends the try).'
AS
SELECT toLowCardinality({app:String}) AS app_id, value, toUInt32(step) AS step, if({ordering:String} = 'any', '', {steps:Array(String)}[step]) AS step_name, countIf(level >= step) AS reached, reached / countIf(level >= 1) AS conversion_from_first,
    reached / nullIf(countIf(level + 1 >= step), 0) AS conversion_from_previous,
    quantileExactInclusiveOrNullIf(0.5)(seconds, step > 1 AND length(step_times) >= step) AS median_seconds_from_previous,
    quantileExactInclusiveOrNullIf(0.9)(seconds, step > 1 AND length(step_times) >= step) AS p90_seconds_from_previous
FROM
(
    SELECT value, level, step_times, step, if(step > 1, (toUnixTimestamp64Micro(step_times[step]) - toUnixTimestamp64Micro(step_times[step - 1])) / 1000000, 0) AS seconds
    FROM (-- The events of each one are cut into tries at each event that ends one. In a try, in
SELECT who.1 AS unit_kind, who.2 AS unit_id, best.1 AS level, arrayMap(t -> fromUnixTimestamp64Micro(t, 'UTC'), best.2) AS step_times, best.3 AS value
FROM
(
    SELECT who, argMax((level, times, label), (level, -toInt64(try))) AS best
    FROM
    (
        SELECT who, try, times, if({ordering:String} = 'ordered', toUInt64(ordered), length(times)) AS level,
            arrayFirst(e -> e.1 = times[1] AND (has(e.5, 1) OR {ordering:String} = 'any'), entries).6 AS label
        FROM
        (
            SELECT who, try,
                windowFunnel({window:UInt64} * 1000000, 'strict_once')(toUInt64(toUnixTimestamp64Micro(event_time)),
            has(ixs, 1), has(ixs, 2), has(ixs, 3), has(ixs, 4), has(ixs, 5), has(ixs, 6), has(ixs, 7), has(ixs, 8)) AS ordered,
                arraySort(e -> (e.1, e.2, e.3, e.4), groupArray((toUnixTimestamp64Micro(event_time), if({ordering:String} = 'ordered', arrayMin(ixs), 0), source_partition, source_offset, ixs, label))) AS entries,
                if({ordering:String} = 'ordered', arrayFold((acc, x) -> if(
                x.2 != 1 AND (empty(acc.1[x.2 - 1]) OR x.1 - acc.1[x.2 - 1][1] > {window:UInt64} * 1000000), acc,
                (arrayMap((c, j) -> if(j = x.2, if(j = 1, [x.1], arrayPushBack(acc.1[j - 1], x.1)), c), acc.1, arrayEnumerate(acc.1)),
                 if(x.2 > length(acc.2), if(x.2 = 1, [x.1], arrayPushBack(acc.1[x.2 - 1], x.1)), acc.2))),
            arrayFlatten(arrayMap(e -> arrayMap(i -> (e.1, i), arrayReverseSort(e.5)), entries)),
            (arrayMap(s -> CAST([], 'Array(Int64)'), {steps:Array(String)}), CAST([], 'Array(Int64)'))).2, if({ordering:String} = 'strict', -- How far the steps lead from each event on; the lambda has the events that follow as
            -- further arguments, since one that captures the array copies it for each event.
            arrayMap(runs -> arrayMap(e -> e.1, arraySlice(entries, indexOf(runs, arrayMax(runs)), arrayMax(runs))), [arrayMap((a, b, c, d, e, f, g, h) ->
                if(NOT has(a.2, 0 + 1), 0, if(NOT has(b.2, 1 + 1) OR b.1 - a.1 > {window:UInt64} * 1000000, 1, if(NOT has(c.2, 2 + 1) OR c.1 - a.1 > {window:UInt64} * 1000000, 2, if(NOT has(d.2, 3 + 1) OR d.1 - a.1 > {window:UInt64} * 1000000, 3, if(NOT has(e.2, 4 + 1) OR e.1 - a.1 > {window:UInt64} * 1000000, 4, if(NOT has(f.2, 5 + 1) OR f.1 - a.1 > {window:UInt64} * 1000000, 5, if(NOT has(g.2, 6 + 1) OR g.1 - a.1 > {window:UInt64} * 1000000, 6, if(NOT has(h.2, 7 + 1) OR h.1 - a.1 > {window:UInt64} * 1000000, 7, 8)))))))),
                arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 0 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 1 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 2 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 3 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 4 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 5 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 6 + 1), length(entries)), arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), 7 + 1), length(entries)))])[1], arrayFold((acc, e) -> arrayMap(last -> (last, if(arrayCount(t -> e.1 - t <= {window:UInt64} * 1000000, last) > length(acc.2), arraySort(arrayFilter(t -> e.1 - t <= {window:UInt64} * 1000000, last)), acc.2)),
                [arrayMap((t, s, before, j) -> if(s != {steps:Array(String)}[e.5[1]], t, if(before = 0, e.1, acc.1[before])), acc.1, {steps:Array(String)},
                    arrayMap((s, j) -> arrayLastIndex(x -> x = s, arraySlice({steps:Array(String)}, 1, j - 1)), {steps:Array(String)}, arrayEnumerate({steps:Array(String)})), arrayEnumerate(acc.1))])[1],
            entries, (arrayMap(s -> toInt64(-9000000000000000000), {steps:Array(String)}), CAST([], 'Array(Int64)'))).2)) AS times
            FROM
            (
                SELECT if({unit:String} = 'account', ('account', account_id), (actor_kind, actor_id)) AS who, event_time, source_partition, source_offset, label, ixs, ends, sum(ends) OVER (PARTITION BY who ORDER BY event_time, source_partition, source_offset) AS try
                FROM
                (
                    SELECT u.actor_kind AS actor_kind, u.actor_id AS actor_id, u.account_id AS account_id, u.event_time AS event_time, u.source_partition AS source_partition, u.source_offset AS source_offset,
            multiIf({by:String} = 'product', u.product_id, {by:String} = 'module', u.module_id, {by:String} = 'feature', u.feature_id, {by:String} = 'account', u.account_id, {by:String} = 'role', u.role, trait.value) AS label,
            arrayFilter((i, s) -> s = u.feature_id OR s = concat('event:', u.event), arrayEnumerate({steps:Array(String)}), {steps:Array(String)}) AS ixs,
            arrayExists(s -> s = u.feature_id OR s = concat('event:', u.event), {without:Array(String)}) AS ends
        FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
        LEFT ANY JOIN
(
    SELECT subject AS id, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS value
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact = substringIndex({by:String}, '.', 1) AND object != '' AND substringIndex(object, '\0', 1) = substring({by:String}, position({by:String}, '.') + 1)
    GROUP BY id
) AS trait ON trait.id = multiIf(startsWith({by:String}, 'account.'), u.account_id, u.actor_kind = 'user', u.actor_id, '')
        WHERE NOT throwIf({unit:String} NOT IN ('person', 'account'), 'unit must be person or account') AND ({unit:String} = 'person' OR account_id != '') AND NOT throwIf({by:String} NOT IN ('', 'product', 'module', 'feature', 'account', 'role') AND NOT startsWith({by:String}, 'account.') AND NOT startsWith({by:String}, 'user.'), 'by must be product, module, feature, account, role, account.<trait>, user.<trait> or empty') AND NOT throwIf(length({steps:Array(String)}) NOT BETWEEN 1 AND 8, 'a funnel has 1 to 8 steps') AND NOT throwIf({ordering:String} NOT IN ('ordered', 'any', 'strict'), 'ordering must be ordered, any or strict') AND (notEmpty(ixs) OR ends OR {ordering:String} = 'strict')
                )
            )
            WHERE NOT ends
            GROUP BY who, try
        )
        WHERE level > 0
    )
    GROUP BY who
))
    ARRAY JOIN arrayEnumerate({steps:Array(String)}) AS step
)
GROUP BY value, step
ORDER BY value, step;

-- view funnel_people

CREATE OR REPLACE VIEW `uptake`.`funnel_people` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `unit_kind` String COMMENT 'user, anonymous or account',
    `unit_id` String COMMENT 'Id of the person or account',
    `level` UInt8 COMMENT 'Number of the furthest step',
    `step_times` Array(DateTime64(6, 'UTC')) COMMENT 'Times of the steps, where the order of equal times allows to tell',
    `value` String COMMENT 'Value of the dimension at the first step'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'How far each person or account came in a funnel, and when. Parameters: app, from, to, zone, steps, window (seconds), unit (person or account), by (as active_users_by; empty: none).'
AS
SELECT toLowCardinality({app:String}) AS app_id, unit_kind, unit_id, level, step_times, value
FROM (-- How far each one came (windowFunnel, exact for steps at the same instant), and
SELECT who.1 AS unit_kind, who.2 AS unit_id, level, arrayMap(t -> fromUnixTimestamp64Micro(t, 'UTC'), times) AS step_times,
    arrayFirst(e -> e.1 = times[1] AND has(e.5, 1), entries).6 AS value
FROM
(
    SELECT if({unit:String} = 'account', ('account', account_id), (actor_kind, actor_id)) AS who,
        windowFunnel({window:UInt64} * 1000000, 'strict_once')(toUInt64(toUnixTimestamp64Micro(event_time)),
            has(ixs, 1), has(ixs, 2), has(ixs, 3), has(ixs, 4), has(ixs, 5), has(ixs, 6), has(ixs, 7), has(ixs, 8)) AS level,
        arraySort(e -> (e.1, e.2, e.3, e.4), groupArray((toUnixTimestamp64Micro(event_time), arrayMin(ixs), source_partition, source_offset, ixs, label))) AS entries,
        arrayFold((acc, x) -> if(
                x.2 != 1 AND (empty(acc.1[x.2 - 1]) OR x.1 - acc.1[x.2 - 1][1] > {window:UInt64} * 1000000), acc,
                (arrayMap((c, j) -> if(j = x.2, if(j = 1, [x.1], arrayPushBack(acc.1[j - 1], x.1)), c), acc.1, arrayEnumerate(acc.1)),
                 if(x.2 > length(acc.2), if(x.2 = 1, [x.1], arrayPushBack(acc.1[x.2 - 1], x.1)), acc.2))),
            arrayFlatten(arrayMap(e -> arrayMap(i -> (e.1, i), arrayReverseSort(e.5)), entries)),
            (arrayMap(s -> CAST([], 'Array(Int64)'), {steps:Array(String)}), CAST([], 'Array(Int64)'))).2 AS times
    FROM
    (
        SELECT u.actor_kind AS actor_kind, u.actor_id AS actor_id, u.account_id AS account_id, u.event_time AS event_time, u.source_partition AS source_partition, u.source_offset AS source_offset,
            multiIf({by:String} = 'product', u.product_id, {by:String} = 'module', u.module_id, {by:String} = 'feature', u.feature_id, {by:String} = 'account', u.account_id, {by:String} = 'role', u.role, trait.value) AS label,
            arrayFilter((i, s) -> s = u.feature_id OR s = concat('event:', u.event), arrayEnumerate({steps:Array(String)}), {steps:Array(String)}) AS ixs
        FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS u
        LEFT ANY JOIN
(
    SELECT subject AS id, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS value
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact = substringIndex({by:String}, '.', 1) AND object != '' AND substringIndex(object, '\0', 1) = substring({by:String}, position({by:String}, '.') + 1)
    GROUP BY id
) AS trait ON trait.id = multiIf(startsWith({by:String}, 'account.'), u.account_id, u.actor_kind = 'user', u.actor_id, '')
        WHERE NOT throwIf({unit:String} NOT IN ('person', 'account'), 'unit must be person or account') AND ({unit:String} = 'person' OR account_id != '') AND NOT throwIf({by:String} NOT IN ('', 'product', 'module', 'feature', 'account', 'role') AND NOT startsWith({by:String}, 'account.') AND NOT startsWith({by:String}, 'user.'), 'by must be product, module, feature, account, role, account.<trait>, user.<trait> or empty') AND NOT throwIf(length({steps:Array(String)}) NOT BETWEEN 1 AND 8, 'a funnel has 1 to 8 steps') AND notEmpty(ixs)
    )
    GROUP BY who
)
WHERE level > 0);

-- view insight_definitions

CREATE OR REPLACE VIEW `uptake`.`insight_definitions` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `version` UInt32 COMMENT 'Version in force',
    `use` LowCardinality(String) COMMENT 'What it is for',
    `match` LowCardinality(String) COMMENT 'What is matched',
    `key` String COMMENT 'Trait, of rules that match traits',
    `value` String COMMENT 'What it is matched with'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Definitions in force: what counts as active, who is left out, which events are milestones. Parameters: app.'
AS
SELECT toLowCardinality({app:String}) AS app_id, version, toString(use) AS use, toString(match) AS match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})
ORDER BY use, match, key, value;

-- view insight_versions

CREATE OR REPLACE VIEW `uptake`.`insight_versions` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `version` UInt32 COMMENT 'Counts up with each apply; the highest one is in force',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When it was applied',
    `applied_by` String COMMENT 'Who applied it',
    `rules` UInt64 COMMENT 'Number of definitions in it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Versions of the definitions of insights and signals'
AS
SELECT app_id, version, any(applied_at) AS applied_at, any(applied_by) AS applied_by, countIf(use != 'version') AS rules
FROM `uptake_internal`.`insight_rules`
GROUP BY app_id, version
ORDER BY app_id, version;

-- view licence_use

CREATE OR REPLACE VIEW `uptake`.`licence_use` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `seats` UInt64 COMMENT 'Seats of the account, from the defined trait (seats by default)',
    `active_users` UInt64 COMMENT 'Active users of the account in the range',
    `utilization` Nullable(Float64) COMMENT 'active_users / seats'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Licence utilization: active users and seats of each account that states seats. Parameters: app, from, to, zone.'
AS
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT toLowCardinality({app:String}) AS app_id, s.account_id AS account_id, s.seats AS seats, a.users AS active_users, active_users / nullIf(s.seats, 0) AS utilization
FROM
(
    SELECT subject AS account_id, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, toUInt64OrZero(trim(BOTH '"' FROM said)) AS seats
    FROM `uptake_internal`.`identity_facts` AS f
    WHERE app_id = {app:String} AND fact = 'account' AND object != ''
        AND substringIndex(object, '\0', 1) = (SELECT if(count() = 0, 'seats', max(key)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})) WHERE use = 'seats')
    GROUP BY account_id
) AS s
LEFT JOIN
(
    SELECT account_id, uniqExactIf(actor_id, actor_kind = 'user') AS users
    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    WHERE active
    GROUP BY account_id
) AS a ON a.account_id = s.account_id
WHERE s.account_id NOT IN excluded_accounts
ORDER BY account_id;

-- view lifecycle

CREATE OR REPLACE VIEW `uptake`.`lifecycle` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `new` UInt64 COMMENT 'Active for the first time ever',
    `returning` UInt64 COMMENT 'Active in this period and in the one before',
    `resurrected` UInt64 COMMENT 'Active in this period, not in the one before, and at some time before that',
    `dormant` UInt64 COMMENT 'Active in the period before and not in this one',
    `quick_ratio` Nullable(Float64) COMMENT '(new + resurrected) / dormant'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Growth accounting: new, returning, resurrected and dormant people of each period. Parameters: app, from, to, zone, period.'
AS
SELECT toLowCardinality({app:String}) AS app_id, state.1 AS period_start, countIf(state.2 = 'new') AS new, countIf(state.2 = 'returning') AS returning,
    countIf(state.2 = 'resurrected') AS resurrected, countIf(state.2 = 'dormant') AS dormant, (new + resurrected) / nullIf(dormant, 0) AS quick_ratio
FROM
(
    SELECT arrayJoin(arrayConcat(
        arrayMap((p, before, i) -> (p, multiIf(i = 1, 'new', toDate(multiIf({period:String} = 'day', before + 1, {period:String} IN ('week', 'sunday_week'), before + 7 * 1, {period:String} = 'month', addMonths(before, 1), addMonths(before, 3 * 1))) = p, 'returning', 'resurrected')),
            periods, arrayPushFront(arrayPopBack(periods), toDate('1970-01-01')), arrayEnumerate(periods)),
        arrayMap((p, after) -> (toDate(multiIf({period:String} = 'day', p + 1, {period:String} IN ('week', 'sunday_week'), p + 7 * 1, {period:String} = 'month', addMonths(p, 1), addMonths(p, 3 * 1))), if(after = toDate(multiIf({period:String} = 'day', p + 1, {period:String} IN ('week', 'sunday_week'), p + 7 * 1, {period:String} = 'month', addMonths(p, 1), addMonths(p, 3 * 1))), '', 'dormant')),
            periods, arrayPushBack(arrayPopFront(periods), toDate('2149-06-06'))))) AS state
    FROM
    (
        SELECT if('person' = 'account', ('account', account_id), (actor_kind, actor_id)) AS who, arraySort(groupUniqArray(multiIf({period:String} = 'day', day, {period:String} = 'week', toStartOfWeek(day, 1), {period:String} = 'sunday_week', toStartOfWeek(day, 0), {period:String} = 'month', toStartOfMonth(day), toStartOfQuarter(day)))) AS periods
        FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
        WHERE active AND NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter') AND NOT throwIf('person' NOT IN ('person', 'account'), 'unit must be person or account') AND ('person' = 'person' OR account_id != '')
        GROUP BY who
    )
)
WHERE period_start >= multiIf({period:String} = 'day', {from:Date}, {period:String} = 'week', toStartOfWeek({from:Date}, 1), {period:String} = 'sunday_week', toStartOfWeek({from:Date}, 0), {period:String} = 'month', toStartOfMonth({from:Date}), toStartOfQuarter({from:Date})) AND period_start < {to:Date} AND state.2 != ''
GROUP BY period_start
ORDER BY period_start;

-- view lifecycle_by

CREATE OR REPLACE VIEW `uptake`.`lifecycle_by` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `new` UInt64 COMMENT 'Active for the first time ever',
    `returning` UInt64 COMMENT 'Active in this period and in the one before',
    `resurrected` UInt64 COMMENT 'Active in this period, not in the one before, and at some time before that',
    `dormant` UInt64 COMMENT 'Active in the period before and not in this one',
    `quick_ratio` Nullable(Float64) COMMENT '(new + resurrected) / dormant'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Growth accounting of people or of accounts. Parameters: app, from, to, zone, period, unit (person or account).'
AS
SELECT toLowCardinality({app:String}) AS app_id, state.1 AS period_start, countIf(state.2 = 'new') AS new, countIf(state.2 = 'returning') AS returning,
    countIf(state.2 = 'resurrected') AS resurrected, countIf(state.2 = 'dormant') AS dormant, (new + resurrected) / nullIf(dormant, 0) AS quick_ratio
FROM
(
    SELECT arrayJoin(arrayConcat(
        arrayMap((p, before, i) -> (p, multiIf(i = 1, 'new', toDate(multiIf({period:String} = 'day', before + 1, {period:String} IN ('week', 'sunday_week'), before + 7 * 1, {period:String} = 'month', addMonths(before, 1), addMonths(before, 3 * 1))) = p, 'returning', 'resurrected')),
            periods, arrayPushFront(arrayPopBack(periods), toDate('1970-01-01')), arrayEnumerate(periods)),
        arrayMap((p, after) -> (toDate(multiIf({period:String} = 'day', p + 1, {period:String} IN ('week', 'sunday_week'), p + 7 * 1, {period:String} = 'month', addMonths(p, 1), addMonths(p, 3 * 1))), if(after = toDate(multiIf({period:String} = 'day', p + 1, {period:String} IN ('week', 'sunday_week'), p + 7 * 1, {period:String} = 'month', addMonths(p, 1), addMonths(p, 3 * 1))), '', 'dormant')),
            periods, arrayPushBack(arrayPopFront(periods), toDate('2149-06-06'))))) AS state
    FROM
    (
        SELECT if({unit:String} = 'account', ('account', account_id), (actor_kind, actor_id)) AS who, arraySort(groupUniqArray(multiIf({period:String} = 'day', day, {period:String} = 'week', toStartOfWeek(day, 1), {period:String} = 'sunday_week', toStartOfWeek(day, 0), {period:String} = 'month', toStartOfMonth(day), toStartOfQuarter(day)))) AS periods
        FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
        WHERE active AND NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter') AND NOT throwIf({unit:String} NOT IN ('person', 'account'), 'unit must be person or account') AND ({unit:String} = 'person' OR account_id != '')
        GROUP BY who
    )
)
WHERE period_start >= multiIf({period:String} = 'day', {from:Date}, {period:String} = 'week', toStartOfWeek({from:Date}, 1), {period:String} = 'sunday_week', toStartOfWeek({from:Date}, 0), {period:String} = 'month', toStartOfMonth({from:Date}), toStartOfQuarter({from:Date})) AND period_start < {to:Date} AND state.2 != ''
GROUP BY period_start
ORDER BY period_start;

-- view metadata_breakdown

CREATE OR REPLACE VIEW `uptake`.`metadata_breakdown` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `value` String COMMENT 'Value of the key as text; empty: the event has none',
    `events` UInt64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that they stand for',
    `people` UInt64 COMMENT 'People with such an event',
    `accounts` UInt64 COMMENT 'Accounts with such an event'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Events of a step by the value of any metadata key. Parameters: app, from, to, zone, step (feature id, event:<name>, or empty for all), path (key path with dots).'
AS
SELECT toLowCardinality({app:String}) AS app_id, value, count() AS events, sum(e.quantity) AS quantity, uniqExact(actor_kind, actor_id) AS people, uniqExactIf(account_id, account_id != '') AS accounts
FROM
(
    SELECT arrayFold((had, key) -> JSONExtractRaw(had, key), splitByChar('.', {path:String}), toJSONString(properties)) AS raw, if(startsWith(raw, '"'), JSONExtractString(raw), raw) AS value, actor_kind, actor_id, account_id, quantity
    FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, properties, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, properties, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, properties, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    WHERE {step:String} = '' OR feature_id = {step:String} OR concat('event:', event) = {step:String}
) AS e
GROUP BY value
ORDER BY events DESC, value;

-- view metadata_conflicts

CREATE OR REPLACE VIEW `uptake`.`metadata_conflicts` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `path` String COMMENT 'Key path, without the # and number that tell several values of one event apart',
    `events` UInt64 COMMENT 'Number of values that did not fit',
    `first_seen` DateTime64(6, 'UTC') COMMENT 'When the first of them was received',
    `last_seen` DateTime64(6, 'UTC') COMMENT 'When the last of them was received',
    `last_value` String COMMENT 'JSON text of the last of them',
    `event_names` Array(String) COMMENT 'Up to five names of events that have it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Key paths of properties and traits with values that do not fit the type of the key'
AS
SELECT
    app_id, path, count() AS events, min(received_at) AS first_seen, max(received_at) AS last_seen,
    argMax(value, received_at) AS last_value, groupUniqArray(5)(event) AS event_names
FROM
(
    SELECT app_id, toString(e.event) AS event, received_at, replaceRegexpOne(kept.1, '#[0-9]+$', '') AS path, kept.2 AS value
    FROM `uptake`.`events` AS e
    ARRAY JOIN JSONExtractKeysAndValuesRaw(conflicts) AS kept
    WHERE conflicts != ''
)
GROUP BY app_id, path;

-- view metric_increases

CREATE OR REPLACE VIEW `uptake`.`metric_increases` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `unit` String COMMENT 'Unit of the value',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Start of the period that the number is of',
    `period_end` DateTime64(6, 'UTC') COMMENT 'End of the period; equal to the start: the number is of an instant',
    `at` DateTime64(6, 'UTC') COMMENT 'Instant that a gauge or a cumulative number is of: the last one of its period',
    `value` Float64 COMMENT 'The number',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Timestamp of the report that counts, as it was sent',
    `received_at` DateTime64(6, 'UTC') COMMENT 'When the gateway received that report',
    `series` UInt64 COMMENT 'Reports of the same account, actor and dimensions: all names of one user are one actor',
    `value_before` Float64 COMMENT 'The number before it in its series; 0: none',
    `place` UInt64 COMMENT 'Its place in the series, from 1',
    `increase` Nullable(Float64) COMMENT 'What it adds to a sum; NULL: nothing, as a gauge or a metric that no catalog declares'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The rows of metric_points with what each adds to a sum'
AS
SELECT
    *,
    multiIf(semantics = 'delta', value, semantics != 'cumulative', NULL, place = 1 OR value < value_before, value, value - value_before) AS increase
FROM
(
    SELECT *, lagInFrame(value, 1, 0.) OVER w AS value_before, row_number() OVER w AS place
    FROM `uptake`.`metric_points`
    WINDOW w AS (
        PARTITION BY app_id, metric_id, number, series, if(period_end > period_start, period_start, toDateTime64(0, 6, 'UTC'))
        ORDER BY period_end, said_at, received_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
);

-- view metric_daily

CREATE OR REPLACE VIEW `uptake`.`metric_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `day` Date COMMENT 'UTC day; a delta of a longer period counts where it starts',
    `value` Nullable(Float64) COMMENT 'Value of the day; NULL: no catalog declares the metric',
    `points` UInt64 COMMENT 'Number of points that it is made of'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Metrics by day: the sum of deltas, the last gauge, or the growth of cumulative numbers'
AS
SELECT
    app_id, metric_id, number, meaning AS semantics, account_id, actor_id, actor_kind, dimensions, day,
    if(meaning = 'gauge', toNullable(last_value), total) AS value, points
FROM
(
    SELECT
        app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, any(i.semantics) AS meaning,
        toDate(if(i.semantics = 'delta', i.period_start, i.at)) AS day,
        argMax(i.value, (i.at, i.said_at, i.received_at)) AS last_value, sumKahanOrNull(i.increase) AS total, count() AS points
    FROM `uptake`.`metric_increases` AS i
    GROUP BY app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, day
);

-- view metric_hourly

CREATE OR REPLACE VIEW `uptake`.`metric_hourly` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `hour` DateTime('UTC') COMMENT 'Start of the hour; a delta of a longer period counts where it starts',
    `value` Nullable(Float64) COMMENT 'Value of the hour; NULL: no catalog declares the metric',
    `points` UInt64 COMMENT 'Number of points that it is made of'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Metrics by hour: the sum of deltas, the last gauge, or the growth of cumulative numbers'
AS
SELECT
    app_id, metric_id, number, meaning AS semantics, account_id, actor_id, actor_kind, dimensions, hour,
    if(meaning = 'gauge', toNullable(last_value), total) AS value, points
FROM
(
    SELECT
        app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, any(i.semantics) AS meaning,
        toStartOfHour(if(i.semantics = 'delta', i.period_start, i.at)) AS hour,
        argMax(i.value, (i.at, i.said_at, i.received_at)) AS last_value, sumKahanOrNull(i.increase) AS total, count() AS points
    FROM `uptake`.`metric_increases` AS i
    GROUP BY app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, hour
);

-- view metric_monthly

CREATE OR REPLACE VIEW `uptake`.`metric_monthly` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `account_id` String COMMENT 'Customer account that it counts for; empty: none is known',
    `actor_id` String COMMENT 'Whom it is of: a user id, an anonymous id, or empty for the account itself',
    `actor_kind` String COMMENT 'What actor_id is: user, anonymous or account',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `month` Date COMMENT 'First day of the month; a delta of a longer period counts where it starts',
    `value` Nullable(Float64) COMMENT 'Value of the month; NULL: no catalog declares the metric',
    `points` UInt64 COMMENT 'Number of points that it is made of'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Metrics by month: the sum of deltas, the last gauge, or the growth of cumulative numbers'
AS
SELECT
    app_id, metric_id, number, meaning AS semantics, account_id, actor_id, actor_kind, dimensions, month,
    if(meaning = 'gauge', toNullable(last_value), total) AS value, points
FROM
(
    SELECT
        app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, any(i.semantics) AS meaning,
        toStartOfMonth(if(i.semantics = 'delta', i.period_start, i.at)) AS month,
        argMax(i.value, (i.at, i.said_at, i.received_at)) AS last_value, sumKahanOrNull(i.increase) AS total, count() AS points
    FROM `uptake`.`metric_increases` AS i
    GROUP BY app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, month
);

-- view milestones

CREATE OR REPLACE VIEW `uptake`.`milestones` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `milestone_id` String COMMENT 'Id of the step',
    `description` String COMMENT 'What it says, in words',
    `owner` String COMMENT 'Who cares',
    `version` UInt32 COMMENT 'Version of the definition',
    `level` LowCardinality(String) COMMENT 'account or user',
    `subject_id` String COMMENT 'Account or user',
    `done` Int64 COMMENT 'How often it was done so far',
    `times` UInt64 COMMENT 'How often it takes',
    `reached` UInt8 COMMENT '1: reached; 0: still open',
    `reached_hour` Nullable(DateTime('UTC')) COMMENT 'UTC hour in which it was reached first'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Milestones of every account or user that was ever active: reached and when, or still open; as of now. Parameters: app.'
AS
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    steps AS (
        SELECT key AS milestone_id, toString(match) AS level, JSONExtractString(value, 'description') AS description, JSONExtractString(value, 'owner') AS owner,
            toUInt32(JSONExtractUInt(value, 'version')) AS version, JSONExtractUInt(value, 'times') AS times, JSONExtract(value, 'of', 'Array(Tuple(match String, value String))') AS of
        FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))
        WHERE use = 'milestone'
    ),
    hours AS (
        SELECT s.milestone_id AS milestone_id, if(s.level = 'user', u.actor_id, u.account_id) AS subject_id, u.hour AS hour, any(s.times) AS times,
            sum(if(arrayExists(o -> multiIf(o.1 = 'feature', u.feature_id = o.2, o.1 = 'module', u.module_id = o.2, o.1 = 'product', u.product_id = o.2, u.event = o.2), s.of), u.events, 0)) AS n, sum(u.events) AS net
        FROM `uptake_internal`.`usage_hourly` AS u
        CROSS JOIN steps AS s
        WHERE u.app_id = {app:String} AND if(s.level = 'user', u.actor_kind = 'user' AND u.actor_id NOT IN excluded_users, u.account_id != '' AND NOT (u.actor_kind = 'user' AND u.actor_id IN excluded_users))
            AND u.account_id NOT IN excluded_accounts AND u.role NOT IN excluded_roles
            AND (empty(excluded_agents) OR (toString(u.actor_kind), u.actor_id) GLOBAL NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))
        GROUP BY milestone_id, subject_id, hour
    ),
    reached AS (
        SELECT milestone_id, subject_id, arraySort(x -> x.1, groupArray((hour, n))) AS list, arrayCumSum(x -> x.2, list) AS sums,
            sum(n) AS done, any(times) AS needed, arrayFirstIndex(x -> x >= needed, sums) AS i
        FROM hours
        GROUP BY milestone_id, subject_id
        HAVING sum(net) > 0
    )
SELECT toLowCardinality({app:String}) AS app_id, s.milestone_id AS milestone_id, s.description AS description, s.owner AS owner, s.version AS version, s.level AS level, r.subject_id AS subject_id,
    r.done AS done, s.times AS times, toUInt8(r.i > 0) AS reached, if(r.i > 0, toNullable(r.list[r.i].1), NULL) AS reached_hour
FROM reached AS r
INNER JOIN steps AS s ON s.milestone_id = r.milestone_id
ORDER BY milestone_id, subject_id;

-- view moved_subjects

CREATE OR REPLACE VIEW `uptake`.`moved_subjects` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Account; empty: none',
    `actor_id` String COMMENT 'User or visitor',
    `actor_kind` LowCardinality(String) COMMENT 'user, anonymous, account or erased'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Accounts and actors whose counts were changed by the corrections that a range of the log ordered: those that events were moved from, and those that they were moved to. Parameters: app, partition of enriched, first, next: offsets in it, next exclusive.'
AS
SELECT DISTINCT app_id, account_id, actor_id, actor_kind
FROM `uptake_internal`.`corrections`
WHERE app_id = {app:String} AND source_partition = {partition:Int32} AND source_offset >= {first:Int64} AND source_offset < {next:Int64}
ORDER BY account_id, actor_kind, actor_id;

-- view moves

CREATE OR REPLACE VIEW `uptake`.`moves` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `corrected_at` DateTime64(3, 'UTC') COMMENT 'When the log ordered it',
    `reason` LowCardinality(String) COMMENT 'link (also of a shared device to another user), unlink, alias, account, role, catalog or erase: what changed',
    `control_id` String COMMENT 'Id of the control record that ordered it',
    `hour` DateTime('UTC') COMMENT 'UTC hour of the events that were moved',
    `event` LowCardinality(String) COMMENT 'Their name',
    `events` Int64 COMMENT 'How many',
    `quantity` Int64 COMMENT 'Sum of their quantities',
    `from_account_id` String COMMENT 'Account that they counted for before',
    `from_actor_id` String COMMENT 'User or visitor that they counted for before',
    `from_actor_kind` String COMMENT 'user, anonymous, account or erased',
    `from_role` String COMMENT 'Role before',
    `from_feature_id` String COMMENT 'Feature before',
    `to_account_id` String COMMENT 'Account after it',
    `to_actor_id` String COMMENT 'User or visitor after it',
    `to_actor_kind` String COMMENT 'user, anonymous, account or erased',
    `to_role` String COMMENT 'Role after it',
    `to_feature_id` String COMMENT 'Feature after it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Corrections of what was counted: from whom to whom, why and when. What events say on arrival plus what was moved is what is counted now. Parameters: app, from, to: days of UTC.'
AS
SELECT toLowCardinality({app:String}) AS app_id, any(c.corrected_at) AS corrected_at,
    toLowCardinality(multiIf(new.3 = 'erased', 'erase', old.5 != new.5, 'catalog', old.2 = new.2 AND old.3 = new.3, if(old.1 != new.1, 'account', 'role'), old.3 = 'anonymous', 'link', new.3 = 'anonymous', 'unlink', old.6 != new.6, 'link', 'alias')) AS reason,
    any(c.control_id) AS control_id, hour, event, toInt64(abs(argMin(c.events, c.row))) AS events, toInt64(abs(argMin(c.quantity, c.row))) AS quantity,
    old.1 AS from_account_id, old.2 AS from_actor_id, old.3 AS from_actor_kind, old.4 AS from_role, old.5 AS from_feature_id,
    new.1 AS to_account_id, new.2 AS to_actor_id, new.3 AS to_actor_kind, new.4 AS to_role, new.5 AS to_feature_id
FROM
(
    SELECT source_topic_id, source_partition, source_offset, block, row, hour, toString(event) AS event, events, quantity, control_id, corrected_at,
        (account_id, actor_id, toString(actor_kind), toString(role), toString(feature_id), user_id) AS whose
    FROM `uptake_internal`.`corrections`
    WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') AND hour < toDateTime({to:Date}, 'UTC')
) AS c
GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, event
HAVING (argMin(c.whose, c.row) AS old) != (argMax(c.whose, c.row) AS new)
ORDER BY corrected_at, control_id, hour, event;

-- view paths_after

CREATE OR REPLACE VIEW `uptake`.`paths_after` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `path` Array(String) COMMENT 'Steps in order, repeats folded',
    `sessions` UInt64 COMMENT 'Sessions with that path',
    `people` UInt64 COMMENT 'People with such a session'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'What people do after a step, within the session: paths from the first occurrence of the step. Parameters: app, from, to, zone, step (feature id or event:<name>), length (steps of a path).'
AS
SELECT toLowCardinality({app:String}) AS app_id, arraySlice(folded, indexOf(folded, {step:String}), {length:UInt8}) AS path, count() AS sessions, uniqExact(actor_kind, actor_id) AS people
FROM
(
    SELECT actor_kind, actor_id, arrayCompact(steps) AS folded
    FROM (-- Events of each person in order of time, and of the log where the time is the same,
SELECT actor_kind, actor_id, s.2[1].6 AS account_id, toUInt32(s.1) AS session_number, fromUnixTimestamp64Micro(s.2[1].1, 'UTC') AS started_at, fromUnixTimestamp64Micro(s.2[-1].1, 'UTC') AS ended_at,
    (s.2[-1].1 - s.2[1].1) / 1000000 AS seconds, length(s.2) AS events, arrayMap(e -> if(e.4 != '', e.4, concat('event:', e.5)), s.2) AS steps
FROM
(
    SELECT actor_kind, actor_id, arraySort(e -> (e.1, e.2, e.3), groupArray((toUnixTimestamp64Micro(event_time), source_partition, source_offset, feature_id, toString(event), account_id))) AS es,
        arraySplit((e, begins) -> begins, es, arrayMap((e, before) -> e.1 - before.1 > gap * 1000000, es, arrayPushFront(arrayPopBack(es), es[1]))) AS ss,
        (SELECT if(count() = 0, 1800, max(toInt64OrZero(value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})) WHERE use = 'session_gap') AS gap
    FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    GROUP BY actor_kind, actor_id
)
ARRAY JOIN arrayZip(arrayEnumerate(ss), ss) AS s)
    WHERE has(steps, {step:String})
)
GROUP BY path
ORDER BY sessions DESC, path;

-- view paths_before

CREATE OR REPLACE VIEW `uptake`.`paths_before` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `path` Array(String) COMMENT 'Steps in order, repeats folded',
    `sessions` UInt64 COMMENT 'Sessions with that path',
    `people` UInt64 COMMENT 'People with such a session'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'What people do before a step, within the session: paths up to the first occurrence of the step. Parameters: app, from, to, zone, step (feature id or event:<name>), length (steps of a path).'
AS
SELECT toLowCardinality({app:String}) AS app_id, arraySlice(arraySlice(folded, 1, indexOf(folded, {step:String})), -toInt16({length:UInt8})) AS path, count() AS sessions, uniqExact(actor_kind, actor_id) AS people
FROM
(
    SELECT actor_kind, actor_id, arrayCompact(steps) AS folded
    FROM (-- Events of each person in order of time, and of the log where the time is the same,
SELECT actor_kind, actor_id, s.2[1].6 AS account_id, toUInt32(s.1) AS session_number, fromUnixTimestamp64Micro(s.2[1].1, 'UTC') AS started_at, fromUnixTimestamp64Micro(s.2[-1].1, 'UTC') AS ended_at,
    (s.2[-1].1 - s.2[1].1) / 1000000 AS seconds, length(s.2) AS events, arrayMap(e -> if(e.4 != '', e.4, concat('event:', e.5)), s.2) AS steps
FROM
(
    SELECT actor_kind, actor_id, arraySort(e -> (e.1, e.2, e.3), groupArray((toUnixTimestamp64Micro(event_time), source_partition, source_offset, feature_id, toString(event), account_id))) AS es,
        arraySplit((e, begins) -> begins, es, arrayMap((e, before) -> e.1 - before.1 > gap * 1000000, es, arrayPushFront(arrayPopBack(es), es[1]))) AS ss,
        (SELECT if(count() = 0, 1800, max(toInt64OrZero(value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})) WHERE use = 'session_gap') AS gap
    FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    GROUP BY actor_kind, actor_id
)
ARRAY JOIN arrayZip(arrayEnumerate(ss), ss) AS s)
    WHERE has(steps, {step:String})
)
GROUP BY path
ORDER BY sessions DESC, path;

-- view replayed_events

CREATE OR REPLACE VIEW `uptake`.`replayed_events` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `replayed_at` DateTime64(3, 'UTC') COMMENT 'When it was sent again last',
    `sent_to` LowCardinality(String) COMMENT 'Where to: raw or gateway',
    `changed` String COMMENT 'JSON text of the changes',
    `source_topic_id` LowCardinality(String) COMMENT 'Id of the rejected topic, as in rejected_events',
    `source_partition` Int32 COMMENT 'Partition of that topic',
    `source_offset` Int64 COMMENT 'Offset in that partition'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Rejected events that `rollup-writer replay-rejected` repaired and sent again'
AS
SELECT app_id, replayed_at, sent_to, changed, source_topic_id, source_partition, source_offset
FROM `uptake_internal`.`replayed_events` FINAL;

-- view retention

CREATE OR REPLACE VIEW `uptake`.`retention` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `cohort` Date COMMENT 'First day of the period in which they started',
    `age` UInt32 COMMENT 'Number of periods since then',
    `cohort_size` UInt64 COMMENT 'Size of the cohort',
    `retained_on` UInt64 COMMENT 'Those who came back in that period',
    `retained_on_or_after` UInt64 COMMENT 'Those who came back in that period or a later one',
    `rate_on` Float64 COMMENT 'retained_on / cohort_size',
    `rate_on_or_after` Float64 COMMENT 'retained_on_or_after / cohort_size',
    `complete` UInt8 COMMENT '1: the period of that age ends before the end of the range'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Retention of people by the period of their first activity. Parameters: app, from, to, zone, period.'
AS
SELECT toLowCardinality({app:String}) AS app_id, cohort, toUInt32(k) AS age, any(size) AS cohort_size, countIf(has(ages, k)) AS retained_on, countIf(oldest >= k) AS retained_on_or_after,
    retained_on / cohort_size AS rate_on, retained_on_or_after / cohort_size AS rate_on_or_after, toUInt8(toDate(multiIf({period:String} = 'day', cohort + (k + 1), {period:String} IN ('week', 'sunday_week'), cohort + 7 * (k + 1), {period:String} = 'month', addMonths(cohort, (k + 1)), addMonths(cohort, 3 * (k + 1)))) <= {to:Date}) AS complete
FROM
(
    SELECT cohort, ages, arrayMax(ages) AS oldest, count() OVER (PARTITION BY cohort) AS size
    FROM
    (
        SELECT who, minIf(p, starts) AS cohort, arrayMap(q -> multiIf({period:String} = 'day', toInt32(q - cohort), {period:String} IN ('week', 'sunday_week'), toInt32(intDiv(q - cohort, 7)), {period:String} = 'month', toInt32(dateDiff('month', cohort, q)), toInt32(intDiv(dateDiff('month', cohort, q), 3))), groupUniqArrayIf(p, returns)) AS distances, arrayPushBack(arrayFilter(n -> n >= 0, distances), -1) AS ages
        FROM
        (
            SELECT if('person' = 'account', ('account', account_id), (actor_kind, actor_id)) AS who, multiIf({period:String} = 'day', day, {period:String} = 'week', toStartOfWeek(day, 1), {period:String} = 'sunday_week', toStartOfWeek(day, 0), {period:String} = 'month', toStartOfMonth(day), toStartOfQuarter(day)) AS p,
                if(empty(CAST([], 'Array(String)')), active, has(CAST([], 'Array(String)'), feature_id)) AS starts,
                if(empty(CAST([], 'Array(String)')), active, has(CAST([], 'Array(String)'), feature_id)) AS returns
            FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
            WHERE NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter') AND NOT throwIf('person' NOT IN ('person', 'account'), 'unit must be person or account') AND ('person' = 'person' OR account_id != '')
        )
        GROUP BY who
        HAVING countIf(starts) > 0
    )
    WHERE cohort >= multiIf({period:String} = 'day', {from:Date}, {period:String} = 'week', toStartOfWeek({from:Date}, 1), {period:String} = 'sunday_week', toStartOfWeek({from:Date}, 0), {period:String} = 'month', toStartOfMonth({from:Date}), toStartOfQuarter({from:Date}))
)
ARRAY JOIN range(toUInt32(multiIf({period:String} = 'day', toInt32(multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1))) - cohort), {period:String} IN ('week', 'sunday_week'), toInt32(intDiv(multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1))) - cohort, 7)), {period:String} = 'month', toInt32(dateDiff('month', cohort, multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1))))), toInt32(intDiv(dateDiff('month', cohort, multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1)))), 3))) + 1)) AS k
GROUP BY cohort, k
ORDER BY cohort, k;

-- view retention_by

CREATE OR REPLACE VIEW `uptake`.`retention_by` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `cohort` Date COMMENT 'First day of the period in which they started',
    `age` UInt32 COMMENT 'Number of periods since then',
    `cohort_size` UInt64 COMMENT 'Size of the cohort',
    `retained_on` UInt64 COMMENT 'Those who came back in that period',
    `retained_on_or_after` UInt64 COMMENT 'Those who came back in that period or a later one',
    `rate_on` Float64 COMMENT 'retained_on / cohort_size',
    `rate_on_or_after` Float64 COMMENT 'retained_on_or_after / cohort_size',
    `complete` UInt8 COMMENT '1: the period of that age ends before the end of the range'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Retention of people or accounts by the period in which they first used one of the features of start; they come back with a feature of return. An empty list is any activity. Parameters: app, from, to, zone, period, unit (person or account), start, return (arrays of feature ids).'
AS
SELECT toLowCardinality({app:String}) AS app_id, cohort, toUInt32(k) AS age, any(size) AS cohort_size, countIf(has(ages, k)) AS retained_on, countIf(oldest >= k) AS retained_on_or_after,
    retained_on / cohort_size AS rate_on, retained_on_or_after / cohort_size AS rate_on_or_after, toUInt8(toDate(multiIf({period:String} = 'day', cohort + (k + 1), {period:String} IN ('week', 'sunday_week'), cohort + 7 * (k + 1), {period:String} = 'month', addMonths(cohort, (k + 1)), addMonths(cohort, 3 * (k + 1)))) <= {to:Date}) AS complete
FROM
(
    SELECT cohort, ages, arrayMax(ages) AS oldest, count() OVER (PARTITION BY cohort) AS size
    FROM
    (
        SELECT who, minIf(p, starts) AS cohort, arrayMap(q -> multiIf({period:String} = 'day', toInt32(q - cohort), {period:String} IN ('week', 'sunday_week'), toInt32(intDiv(q - cohort, 7)), {period:String} = 'month', toInt32(dateDiff('month', cohort, q)), toInt32(intDiv(dateDiff('month', cohort, q), 3))), groupUniqArrayIf(p, returns)) AS distances, arrayPushBack(arrayFilter(n -> n >= 0, distances), -1) AS ages
        FROM
        (
            SELECT if({unit:String} = 'account', ('account', account_id), (actor_kind, actor_id)) AS who, multiIf({period:String} = 'day', day, {period:String} = 'week', toStartOfWeek(day, 1), {period:String} = 'sunday_week', toStartOfWeek(day, 0), {period:String} = 'month', toStartOfMonth(day), toStartOfQuarter(day)) AS p,
                if(empty({start:Array(String)}), active, has({start:Array(String)}, feature_id)) AS starts,
                if(empty({return:Array(String)}), active, has({return:Array(String)}, feature_id)) AS returns
            FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= toDate('1970-01-03') AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(toDate('1970-01-03') + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - toDate('1970-01-03') + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= toDate('1970-01-03') AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
            WHERE NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter') AND NOT throwIf({unit:String} NOT IN ('person', 'account'), 'unit must be person or account') AND ({unit:String} = 'person' OR account_id != '')
        )
        GROUP BY who
        HAVING countIf(starts) > 0
    )
    WHERE cohort >= multiIf({period:String} = 'day', {from:Date}, {period:String} = 'week', toStartOfWeek({from:Date}, 1), {period:String} = 'sunday_week', toStartOfWeek({from:Date}, 0), {period:String} = 'month', toStartOfMonth({from:Date}), toStartOfQuarter({from:Date}))
)
ARRAY JOIN range(toUInt32(multiIf({period:String} = 'day', toInt32(multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1))) - cohort), {period:String} IN ('week', 'sunday_week'), toInt32(intDiv(multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1))) - cohort, 7)), {period:String} = 'month', toInt32(dateDiff('month', cohort, multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1))))), toInt32(intDiv(dateDiff('month', cohort, multiIf({period:String} = 'day', ({to:Date} - 1), {period:String} = 'week', toStartOfWeek(({to:Date} - 1), 1), {period:String} = 'sunday_week', toStartOfWeek(({to:Date} - 1), 0), {period:String} = 'month', toStartOfMonth(({to:Date} - 1)), toStartOfQuarter(({to:Date} - 1)))), 3))) + 1)) AS k
GROUP BY cohort, k
ORDER BY cohort, k;

-- view saved_questions

CREATE OR REPLACE VIEW `uptake`.`saved_questions` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `id` String COMMENT 'Id of the question',
    `name` String COMMENT 'Name that it was saved under',
    `query` String COMMENT 'The part of the address under /explore that asks it, without app, period and time zone',
    `boards` Array(String) COMMENT 'Ids of the boards that it is on',
    `mail` String COMMENT 'Schedule by which it is mailed, JSON; empty: it is not',
    `author` String COMMENT 'Who saved it last; empty: nobody was signed in',
    `written_at` DateTime64(3, 'UTC') COMMENT 'When it was last changed'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Questions of the console that people keep under a name'
AS
SELECT app_id, id, JSONExtractString(value, 'question', 'name') AS name, JSONExtractString(value, 'question', 'query') AS query,
    JSONExtract(value, 'question', 'boards', 'Array(String)') AS boards, JSONExtractRaw(value, 'question', 'mail') AS mail, author, written_at
FROM (-- The newest version of each note that is not deleted. Several shards may have versions of one.
SELECT app_id, kind, id, argMax(value, version) AS value, argMax(author, version) AS author, argMax(written_at, version) AS written_at
FROM `uptake_internal`.`notes`
GROUP BY app_id, kind, id
HAVING argMax(removed, version) = 0)
WHERE kind = 'question'
ORDER BY app_id, name, id;

-- view segment_history

CREATE OR REPLACE VIEW `uptake`.`segment_history` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `segment_id` LowCardinality(String) COMMENT 'Id of the segment',
    `level` LowCardinality(String) COMMENT 'account or user',
    `subject_id` String COMMENT 'Account or user',
    `entered_at` DateTime64(3, 'UTC') COMMENT 'End of the day in which it entered',
    `left_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'End of the day in which it left; empty: it is in it',
    `version` UInt32 COMMENT 'Version of the definition that it entered under'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Who was in which segment from when to when, as now known: stays that a correction made untrue are left out'
AS
SELECT app_id, segment_id, level, subject_id, entered_at, left_at, version
FROM (-- Stays of subjects in segments, as last said: without what was retracted.
SELECT app_id, any(signal) AS segment_id, argMin(version, order) AS version, any(level) AS level, any(subject) AS subject_id,
    argMax(state, order) AS state, argMax(valid_from, order) AS entered_at, argMax(tuple(valid_to), order).1 AS left_at
FROM (SELECT *, (written_at, log_offset) AS order FROM `uptake_internal`.`signal_log` FINAL WHERE signal_use = 'segment' AND state != 'acknowledged')
GROUP BY app_id, alert_id
HAVING state != 'retracted')
ORDER BY app_id, segment_id, entered_at, subject_id;

-- view segment_members

CREATE OR REPLACE VIEW `uptake`.`segment_members` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `segment_id` LowCardinality(String) COMMENT 'Id of the segment',
    `level` LowCardinality(String) COMMENT 'account or user',
    `subject_id` String COMMENT 'Account or user',
    `since` DateTime64(3, 'UTC') COMMENT 'End of the day in which it entered; at most the horizon of evaluation ago',
    `version` UInt32 COMMENT 'Version of the definition that it entered under'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Who is in which segment now: a filter for other questions, as in account_id IN (SELECT subject_id FROM segment_members WHERE app_id = ... AND segment_id = ...)'
AS
SELECT app_id, segment_id, level, subject_id, entered_at AS since, version
FROM (-- Stays of subjects in segments, as last said: without what was retracted.
SELECT app_id, any(signal) AS segment_id, argMin(version, order) AS version, any(level) AS level, any(subject) AS subject_id,
    argMax(state, order) AS state, argMax(valid_from, order) AS entered_at, argMax(tuple(valid_to), order).1 AS left_at
FROM (SELECT *, (written_at, log_offset) AS order FROM `uptake_internal`.`signal_log` FINAL WHERE signal_use = 'segment' AND state != 'acknowledged')
GROUP BY app_id, alert_id
HAVING state != 'retracted')
WHERE state = 'entered'
ORDER BY app_id, segment_id, subject_id;

-- view session_summary

CREATE OR REPLACE VIEW `uptake`.`session_summary` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `period_start` Date COMMENT 'First day of the period, in the zone',
    `sessions` UInt64 COMMENT 'Sessions that started in the period',
    `people` UInt64 COMMENT 'People with a session',
    `sessions_per_person` Float64 COMMENT 'sessions / people',
    `events_per_session` Float64 COMMENT 'Mean number of events',
    `median_seconds` Float64 COMMENT 'Median duration',
    `single_event_rate` Float64 COMMENT 'Share of sessions of one event'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Sessions of each period. Parameters: app, from, to, zone, period.'
AS
SELECT toLowCardinality({app:String}) AS app_id, multiIf({period:String} = 'day', toDate(started_at, {zone:String}), {period:String} = 'week', toStartOfWeek(toDate(started_at, {zone:String}), 1), {period:String} = 'sunday_week', toStartOfWeek(toDate(started_at, {zone:String}), 0), {period:String} = 'month', toStartOfMonth(toDate(started_at, {zone:String})), toStartOfQuarter(toDate(started_at, {zone:String}))) AS period_start, count() AS sessions, uniqExact(actor_kind, actor_id) AS people, sessions / people AS sessions_per_person,
    avg(s.events) AS events_per_session, quantileExactInclusive(0.5)(s.seconds) AS median_seconds, countIf(s.events = 1) / sessions AS single_event_rate
FROM (-- Events of each person in order of time, and of the log where the time is the same,
SELECT actor_kind, actor_id, s.2[1].6 AS account_id, toUInt32(s.1) AS session_number, fromUnixTimestamp64Micro(s.2[1].1, 'UTC') AS started_at, fromUnixTimestamp64Micro(s.2[-1].1, 'UTC') AS ended_at,
    (s.2[-1].1 - s.2[1].1) / 1000000 AS seconds, length(s.2) AS events, arrayMap(e -> if(e.4 != '', e.4, concat('event:', e.5)), s.2) AS steps
FROM
(
    SELECT actor_kind, actor_id, arraySort(e -> (e.1, e.2, e.3), groupArray((toUnixTimestamp64Micro(event_time), source_partition, source_offset, feature_id, toString(event), account_id))) AS es,
        arraySplit((e, begins) -> begins, es, arrayMap((e, before) -> e.1 - before.1 > gap * 1000000, es, arrayPushFront(arrayPopBack(es), es[1]))) AS ss,
        (SELECT if(count() = 0, 1800, max(toInt64OrZero(value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})) WHERE use = 'session_gap') AS gap
    FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    GROUP BY actor_kind, actor_id
)
ARRAY JOIN arrayZip(arrayEnumerate(ss), ss) AS s) AS s
WHERE NOT throwIf({period:String} NOT IN ('day', 'week', 'sunday_week', 'month', 'quarter'), 'period must be day, week, sunday_week, month or quarter')
GROUP BY period_start
ORDER BY period_start;

-- view sessions

CREATE OR REPLACE VIEW `uptake`.`sessions` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user, or anonymous for a visitor who is not known to be a user',
    `actor_id` String COMMENT 'User id or anonymous id',
    `account_id` String COMMENT 'Account of the first event; empty: none is known',
    `session_number` UInt32 COMMENT 'Number of the session of the person in the range, from 1',
    `started_at` DateTime64(6, 'UTC') COMMENT 'First event',
    `ended_at` DateTime64(6, 'UTC') COMMENT 'Last event',
    `seconds` Float64 COMMENT 'Time from the first to the last event',
    `events` UInt64 COMMENT 'Number of events',
    `steps` Array(String) COMMENT 'Feature of each event in order; of unmapped ones event: and the name'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Sessions: events of a person without a gap longer than the defined one (30 minutes by default). A session that crosses an end of the range is cut there. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, account_id, session_number, started_at, ended_at, seconds, events, steps
FROM (-- Events of each person in order of time, and of the log where the time is the same,
SELECT actor_kind, actor_id, s.2[1].6 AS account_id, toUInt32(s.1) AS session_number, fromUnixTimestamp64Micro(s.2[1].1, 'UTC') AS started_at, fromUnixTimestamp64Micro(s.2[-1].1, 'UTC') AS ended_at,
    (s.2[-1].1 - s.2[1].1) / 1000000 AS seconds, length(s.2) AS events, arrayMap(e -> if(e.4 != '', e.4, concat('event:', e.5)), s.2) AS steps
FROM
(
    SELECT actor_kind, actor_id, arraySort(e -> (e.1, e.2, e.3), groupArray((toUnixTimestamp64Micro(event_time), source_partition, source_offset, feature_id, toString(event), account_id))) AS es,
        arraySplit((e, begins) -> begins, es, arrayMap((e, before) -> e.1 - before.1 > gap * 1000000, es, arrayPushFront(arrayPopBack(es), es[1]))) AS ss,
        (SELECT if(count() = 0, 1800, max(toInt64OrZero(value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String})) WHERE use = 'session_gap') AS gap
    FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    GROUP BY actor_kind, actor_id
)
ARRAY JOIN arrayZip(arrayEnumerate(ss), ss) AS s);

-- view stickiness

CREATE OR REPLACE VIEW `uptake`.`stickiness` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `day` Date COMMENT 'Day of the zone',
    `dau` UInt64 COMMENT 'People active on the day',
    `wau` UInt64 COMMENT 'People active in the 7 days up to it',
    `mau` UInt64 COMMENT 'People active in the 28 days up to it',
    `dau_mau` Nullable(Float64) COMMENT 'Stickiness: dau / mau',
    `dau_wau` Nullable(Float64) COMMENT 'dau / wau'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Rolling active people and stickiness of each day, also of days without activity. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, day, toUInt64(n1) AS dau, toUInt64(n7) AS wau, toUInt64(n28) AS mau, dau / nullIf(mau, 0) AS dau_mau, dau / nullIf(wau, 0) AS dau_wau
FROM
(
    SELECT day, sum(c1) OVER w AS n1, sum(c7) OVER w AS n7, sum(c28) OVER w AS n28
    FROM
    (
        SELECT change.1 AS day, sumIf(change.3, change.2 = 1) AS c1, sumIf(change.3, change.2 = 7) AS c7, sumIf(change.3, change.2 = 28) AS c28
        FROM
        (
            SELECT arrayJoin(arrayConcat(
                arrayMap((d, before, n) -> (d, n, toInt64(d - before >= n)), days3, before3, windows3),
                arrayMap((d, after, n) -> (d + n, n, -toInt64(after - d >= n)), days3, after3, windows3))) AS change
            FROM
            (
                SELECT days, arrayConcat(days, days, days) AS days3,
                    arrayPushFront(arrayPopBack(days), toDate('1970-01-01')) AS before, arrayConcat(before, before, before) AS before3,
                    arrayPushBack(arrayPopFront(days), toDate('2149-06-06')) AS after, arrayConcat(after, after, after) AS after3,
                    arrayConcat(arrayMap(d -> toUInt16(1), days), arrayMap(d -> toUInt16(7), days), arrayMap(d -> toUInt16(28), days)) AS windows3
                FROM
                (
                    SELECT arraySort(groupUniqArray(day)) AS days
                    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime(({from:Date} - 27), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= ({from:Date} - 27) AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime(({from:Date} - 27) + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - ({from:Date} - 27) + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= ({from:Date} - 27) - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= ({from:Date} - 27) AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(({from:Date} - 27), 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
                    WHERE active
                    GROUP BY actor_kind, actor_id
                )
            )
            UNION ALL
            SELECT (arrayJoin(arrayMap(i -> {from:Date} + i, range(toUInt32({to:Date} - {from:Date})))), toUInt16(1), toInt64(0))
        )
        GROUP BY day
    )
    WINDOW w AS (ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
WHERE day >= {from:Date} AND day < {to:Date}
ORDER BY day;

-- view stickiness_histogram

CREATE OR REPLACE VIEW `uptake`.`stickiness_histogram` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `days_active` UInt64 COMMENT 'Number of days with activity',
    `people` UInt64 COMMENT 'People who were active on that many days of the range'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'How many people were active on 1, 2, 3, ... days of a range. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, days_active, count() AS people
FROM
(
    SELECT uniqExact(day) AS days_active
    FROM (-- Usage of customers; active says whether it counts as activity: as defined, or
WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents,
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM (-- Counted usage by day of the zone: from the hourly rollup, and from events where
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {zone:String}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    AND toDate(hour, {zone:String}) >= {from:Date} AND toDate(hour, {zone:String}) < {to:Date} AND toDate(hour, {zone:String}) = toDate(hour + 3599, {zone:String})
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {zone:String}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, quantity, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, quantity, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, quantity, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND arrayExists(i -> toUnixTimestamp(toDateTime({from:Date} + i, {zone:String})) % 3600 != 0, range(toUInt32({to:Date} - {from:Date} + 1))) AND NOT toDate(toStartOfHour(toDateTime(event_time, 'UTC')), {zone:String}) = toDate(toStartOfHour(toDateTime(event_time, 'UTC')) + 3599, {zone:String})
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day)
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    WHERE active
    GROUP BY actor_kind, actor_id
)
GROUP BY days_active
ORDER BY days_active;

-- view time_to_value

CREATE OR REPLACE VIEW `uptake`.`time_to_value` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `people` UInt64 COMMENT 'People first seen in the range',
    `activated` UInt64 COMMENT 'Those of them with an activation event, whenever',
    `median_seconds_to_activation` Nullable(Float64) COMMENT 'Median time from the first event of any kind to it',
    `reached_value` UInt64 COMMENT 'Those with a value event, whenever',
    `value_rate` Nullable(Float64) COMMENT 'reached_value / people',
    `median_seconds_to_value` Nullable(Float64) COMMENT 'Median time from the first event of any kind to the first value event',
    `p90_seconds_to_value` Nullable(Float64) COMMENT '90th percentile of it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Time to first value: from the first event of any kind, also as a visitor, to the first value event. Parameters: app, from, to, zone.'
AS
WITH at -> (toUnixTimestamp64Micro(assumeNotNull(at)) - toUnixTimestamp64Micro(first_seen_at)) / 1000000 AS seconds
SELECT toLowCardinality({app:String}) AS app_id, count() AS people, countIf(activation_at IS NOT NULL) AS activated, quantileExactInclusiveOrNullIf(0.5)(seconds(activation_at), activation_at IS NOT NULL) AS median_seconds_to_activation,
    countIf(value_at IS NOT NULL) AS reached_value, reached_value / nullIf(people, 0) AS value_rate,
    quantileExactInclusiveOrNullIf(0.5)(seconds(value_at), value_at IS NOT NULL) AS median_seconds_to_value,
    quantileExactInclusiveOrNullIf(0.9)(seconds(value_at), value_at IS NOT NULL) AS p90_seconds_to_value
FROM (-- Of each person the first event of any kind and the first one of each milestone, of
WITH
    (SELECT groupArray((use, concat(match, ':', value))) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))
     WHERE use IN ('signup_page', 'signup', 'activation', 'value', 'subscription', 'paid')) AS defined,
    (use, feature, event) -> has(defined, (use, concat('feature:', feature))) OR has(defined, (use, concat('event:', event))) AS matches
SELECT actor_kind, actor_id, argMax(e.account_id, (e.event_time, e.source_partition, e.source_offset)) AS account_id, min(e.event_time) AS first_seen_at,
    minOrNullIf(e.event_time, matches('signup_page', e.feature_id, e.event)) AS signup_page_at, minOrNullIf(e.event_time, matches('signup', e.feature_id, e.event)) AS signup_at,
    minOrNullIf(e.event_time, matches('activation', e.feature_id, e.event)) AS activation_at, minOrNullIf(e.event_time, matches('value', e.feature_id, e.event)) AS value_at,
    minOrNullIf(e.event_time, matches('subscription', e.feature_id, e.event)) AS subscription_at, minOrNullIf(e.event_time, matches('paid', e.feature_id, e.event)) AS paid_at
FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event, event_time, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event, event_time, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event, event_time, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= toDate('1970-01-03') - 1 AND toDate(event_time) <= toDate('2100-01-01') + 1
            AND toDate(event_time, 'UTC') >= toDate('1970-01-03') AND toDate(event_time, 'UTC') < toDate('2100-01-01')
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime(toDate('1970-01-03'), 'UTC') - 86400 AND hour < toDateTime(toDate('2100-01-01'), 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u))) AS e
GROUP BY actor_kind, actor_id)
WHERE toDate(first_seen_at, {zone:String}) >= {from:Date} AND toDate(first_seen_at, {zone:String}) < {to:Date};

-- view touches

CREATE OR REPLACE VIEW `uptake`.`touches` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user or anonymous',
    `actor_id` String COMMENT 'Person',
    `touches` UInt64 COMMENT 'Events of the range that came with a campaign or a referrer',
    `first_at` DateTime64(6, 'UTC') COMMENT 'When the first of them was',
    `first_referrer` String COMMENT 'Host of its referrer; empty: none',
    `first_source` String COMMENT 'Source of its campaign (utm_source); empty: none',
    `first_medium` String COMMENT 'Medium of its campaign (utm_medium); empty: none',
    `first_campaign` String COMMENT 'Name of its campaign (utm_campaign); empty: none',
    `last_at` DateTime64(6, 'UTC') COMMENT 'When the last of them was',
    `last_referrer` String COMMENT 'Host of its referrer; empty: none',
    `last_source` String COMMENT 'Source of its campaign; empty: none',
    `last_medium` String COMMENT 'Medium of its campaign; empty: none',
    `last_campaign` String COMMENT 'Name of its campaign; empty: none'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'First and last touch: the campaign and the referrer that brought each person, also as a visitor before sign-up. A referrer of the same host is none. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, n AS touches,
    first.1 AS first_at, first.2 AS first_referrer, first.3 AS first_source, first.4 AS first_medium, first.5 AS first_campaign,
    last.1 AS last_at, last.2 AS last_referrer, last.3 AS last_source, last.4 AS last_medium, last.5 AS last_campaign
FROM
(
    SELECT actor_kind, actor_id, count() AS n, argMin(touch, place) AS first, argMax(touch, place) AS last
    FROM
    (
        SELECT actor_kind, actor_id, (event_time, source_partition, source_offset) AS place,
            (event_time, toString(referrer), toString(utm_source), toString(utm_medium), toString(utm_campaign)) AS touch
        FROM (WITH
    -- What is defined for the app, as constants: an array of (use, match, key, value), and
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM (SELECT use, match, key, value
FROM `uptake_internal`.`insight_rules`
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM `uptake_internal`.`insight_rules` WHERE app_id = {app:String}))) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)).4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents
SELECT *
FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, referrer, utm_source, utm_medium, utm_campaign, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, referrer, utm_source, utm_medium, utm_campaign, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, referrer, utm_source, utm_medium, utm_campaign, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND (referrer != '' OR utm_source != '' OR utm_medium != '' OR utm_campaign != '')
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
WHERE -- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN (-- For whom usage of these ids counts today: it is in the rollup, where moves took it
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM `uptake_internal`.`usage_hourly`
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents))
        UNION ALL
        SELECT actor_id FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM (-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM `uptake_internal`.`user_agents`
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents)))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u)))
    )
    GROUP BY actor_kind, actor_id
)
ORDER BY actor_kind, actor_id;

-- view unmapped_events

CREATE OR REPLACE VIEW `uptake`.`unmapped_events` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` LowCardinality(String) COMMENT 'Event name',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `first_seen` DateTime('UTC') COMMENT 'Hour of the first event',
    `last_seen` DateTime('UTC') COMMENT 'Hour of the last event'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Event names that match no feature of the catalog, with the usage counted for them today'
AS
SELECT app_id, event, sum(n) AS events, sum(q) AS quantity, min(hour) AS first_seen, max(hour) AS last_seen
FROM
(
    SELECT app_id, toString(u.event) AS event, hour, sum(u.events) AS n, sum(u.quantity) AS q
    FROM `uptake_internal`.`usage_hourly` AS u
    WHERE feature_id = ''
    GROUP BY app_id, event, hour
    HAVING n != 0 OR q != 0
)
GROUP BY app_id, event;

-- view unmapped_samples

CREATE OR REPLACE VIEW `uptake`.`unmapped_samples` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event` LowCardinality(String) COMMENT 'Event name',
    `kind` LowCardinality(String) COMMENT 'track, page, screen or api_call',
    `event_time` DateTime64(6, 'UTC') COMMENT 'Instant that the event counts at',
    `properties` JSON(max_dynamic_paths = 256) COMMENT 'Normalized properties',
    `context` String COMMENT 'JSON text as sent',
    `protocol` LowCardinality(String) COMMENT 'Protocol of the call: segment, posthog, moesif, ...',
    `library` LowCardinality(String) COMMENT 'name/version of the sending SDK',
    `message_id` String COMMENT 'Unique within the app'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The newest five events of each name in unmapped_events, to see which feature they belong to'
AS
SELECT app_id, event, kind, event_time, properties, context, protocol, library, message_id
FROM `uptake`.`events`
WHERE feature_id = '' AND kind IN ('track', 'page', 'screen', 'api_call')
    AND (app_id, toString(event)) IN (SELECT app_id, event FROM `uptake`.`unmapped_events`)
ORDER BY event_time DESC
LIMIT 5 BY app_id, event;

-- view usage_hourly

CREATE OR REPLACE VIEW `uptake`.`usage_hourly` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `user_id` String COMMENT 'User that the events named, or that their anonymous id is linked to, before aliases',
    `anonymous_id` String COMMENT 'Anonymous id of events that named no user',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `event` LowCardinality(String) COMMENT 'Event name',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of event_time',
    `source_partition` Int32 COMMENT 'Partition of the log that the events came from: an account or a feature has rows of several',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage by account, actor, feature, event name and hour: one row for each, without those whose events were all moved elsewhere. For sums alone usage_hourly_sums costs less'
AS
SELECT app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`usage_hourly` AS r
GROUP BY app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition
HAVING events != 0 OR quantity != 0;

-- view usage_hourly_sums

CREATE OR REPLACE VIEW `uptake`.`usage_hourly_sums` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `account_source` LowCardinality(String) COMMENT 'How account_id was found: event, membership or none',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `user_id` String COMMENT 'User that the events named, or that their anonymous id is linked to, before aliases',
    `anonymous_id` String COMMENT 'Anonymous id of events that named no user',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `event` LowCardinality(String) COMMENT 'Event name',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of event_time',
    `source_partition` Int32 COMMENT 'Partition of the log that the events came from: an account or a feature has rows of several',
    `events` Int64 COMMENT 'Number of events, signed: sum it',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for, signed: sum it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The rows of usage_hourly before they are summed: right for sum(events) and sum(quantity), grouped by anything, and for nothing else. A key may have several rows, and rows whose sum is 0'
AS
SELECT app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, events, quantity
FROM `uptake_internal`.`usage_hourly`;

-- view user_feature_daily

CREATE OR REPLACE VIEW `uptake`.`user_feature_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a feature by an actor on a day: one row for each, without those whose events were all moved elsewhere. For sums alone user_feature_daily_sums costs less'
AS
SELECT app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`user_feature_daily` AS r
GROUP BY app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, day
HAVING events != 0 OR quantity != 0;

-- view users_today

CREATE OR REPLACE VIEW `uptake`.`users_today` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `account_id` String COMMENT 'Account of the user today',
    `role` String COMMENT 'Role in that account',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated this account and role'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The account and role of each user today: the membership stated last'
AS
SELECT app_id, user_id, tupleElement(last, 1) AS account_id, tupleElement(last, 2) AS role, max(since) AS since
FROM
(
    SELECT app_id, user_id, argMax((account_id, role), (since, account_id, role)) OVER (PARTITION BY app_id, user_id) AS last, since
    FROM `uptake`.`memberships`
)
GROUP BY app_id, user_id, last;

-- view user_feature_daily_as_today

CREATE OR REPLACE VIEW `uptake`.`user_feature_daily_as_today` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Account that the user belongs to today: the one stated last; of other actors, and of users without a membership, the account of the events',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` String COMMENT 'Role of the user in that account today',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for',
    `account_id_then` String COMMENT 'Account that the events counted for',
    `role_then` LowCardinality(String) COMMENT 'Role of the actor in that account at the time'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a feature by an actor on a day, under the account and role that the user has today. As it was at the time: user_feature_daily'
AS
SELECT
    u.app_id AS app_id, if(t.user_id != '', t.account_id, u.account_id) AS account_id, u.actor_id AS actor_id, u.actor_kind AS actor_kind,
    if(t.user_id != '', t.role, u.role) AS role, u.feature_id AS feature_id, u.module_id AS module_id, u.product_id AS product_id,
    u.day AS day, u.events AS events, u.quantity AS quantity, u.account_id AS account_id_then, u.role AS role_then
FROM `uptake`.`user_feature_daily` AS u
LEFT JOIN `uptake`.`users_today` AS t ON t.app_id = u.app_id AND t.user_id = u.actor_id AND u.actor_kind = 'user';

-- view user_feature_daily_sums

CREATE OR REPLACE VIEW `uptake`.`user_feature_daily_sums` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `feature_id` LowCardinality(String) COMMENT 'Feature of the catalog; empty: the event matches none (unmapped)',
    `module_id` LowCardinality(String) COMMENT 'Module of the feature',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events, signed: sum it',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for, signed: sum it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The rows of user_feature_daily before they are summed: right for sum(events) and sum(quantity), grouped by anything, and for nothing else. A key may have several rows, and rows whose sum is 0'
AS
SELECT app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, day, events, quantity
FROM `uptake_internal`.`user_feature_daily`;

-- view user_metrics

CREATE OR REPLACE VIEW `uptake`.`user_metrics` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `metric_id` String COMMENT 'Metric of the catalog; of a metric that no catalog declares, the name of its events',
    `number` LowCardinality(String) COMMENT 'Name of the number within the metric; empty: its only one',
    `dimensions` Map(String, String) COMMENT 'Dimensions of the number by name',
    `semantics` String COMMENT 'delta, gauge or cumulative; empty: no catalog declares the metric',
    `unit` String COMMENT 'Unit of the value',
    `value` Float64 COMMENT 'The number',
    `at` DateTime64(6, 'UTC') COMMENT 'Instant that a gauge or a cumulative number is of: the last one of its period',
    `period_start` DateTime64(6, 'UTC') COMMENT 'Start of the period that the number is of',
    `period_end` DateTime64(6, 'UTC') COMMENT 'End of the period; equal to the start: the number is of an instant'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'The latest number of each metric of each user'
AS
SELECT app_id, actor_id AS user_id, metric_id, number, dimensions, semantics, unit, value, at, period_start, period_end
FROM `uptake`.`metric_points`
WHERE actor_kind = 'user'
ORDER BY at DESC, said_at DESC, received_at DESC
LIMIT 1 BY app_id, user_id, metric_id, number, dimensions;

-- view user_module_daily

CREATE OR REPLACE VIEW `uptake`.`user_module_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `module_id` LowCardinality(String) COMMENT 'Module of the catalog; empty: the event matches no feature (unmapped)',
    `product_id` LowCardinality(String) COMMENT 'Product of the module',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a module by an actor on a day: one row for each, without those whose events were all moved elsewhere. For sums alone user_feature_daily_sums costs less'
AS
SELECT app_id, account_id, actor_id, actor_kind, role, module_id, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`user_feature_daily` AS r
GROUP BY app_id, account_id, actor_id, actor_kind, role, module_id, product_id, day
HAVING events != 0 OR quantity != 0;

-- view user_product_daily

CREATE OR REPLACE VIEW `uptake`.`user_product_daily` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `actor_id` String COMMENT 'Who did it: a user id, or an anonymous id that is not linked to a user, or empty for the account itself',
    `actor_kind` LowCardinality(String) COMMENT 'What actor_id is: user, anonymous or account. The same string may be a user id and an anonymous id: those are two actors',
    `role` LowCardinality(String) COMMENT 'Role of the actor in the account at the time of the events',
    `product_id` LowCardinality(String) COMMENT 'Product of the catalog; empty: the event matches no feature (unmapped)',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'Number of events',
    `quantity` Int64 COMMENT 'Number of actions that the events stand for'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Usage of a product by an actor on a day: one row for each, without those whose events were all moved elsewhere. For sums alone user_feature_daily_sums costs less'
AS
SELECT app_id, account_id, actor_id, actor_kind, role, product_id, day,
    sum(r.events) AS events, sum(r.quantity) AS quantity
FROM `uptake_internal`.`user_feature_daily` AS r
GROUP BY app_id, account_id, actor_id, actor_kind, role, product_id, day
HAVING events != 0 OR quantity != 0;

-- view user_timeline

CREATE OR REPLACE VIEW `uptake`.`user_timeline` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `event_time` DateTime64(6, 'UTC') COMMENT 'When it counts',
    `kind` LowCardinality(String) COMMENT 'track, page, screen, api_call, identify, group, alias or metric',
    `event` LowCardinality(String) COMMENT 'Event name',
    `feature_id` String COMMENT 'Feature that it counts for today; empty: unmapped, or no usage',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `role` String COMMENT 'Role in the account',
    `properties` String COMMENT 'JSON text of the properties, of identify and group calls of the traits',
    `message_id` String COMMENT 'Message id of the event'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Everything that one person did, as of today: also what was done as a visitor before. Parameters: app, from, to, zone, user (user id or anonymous id).'
AS
SELECT toLowCardinality({app:String}) AS app_id, event_time, kind, event, feature_id, account_id, role, text AS properties, message_id
FROM
(
    SELECT event_time, toString(kind) AS kind, toString(event) AS event, feature_id, account_id, role, toJSONString(properties) AS text, message_id, source_partition, source_offset
    FROM (-- An event takes, in the order of the log, each move behind it that names the
SELECT event_time, kind, event, properties, message_id, source_partition, source_offset, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT event_time, kind, event, properties, message_id, source_partition, source_offset, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT event_time, kind, event, properties, message_id, source_partition, source_offset, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM `uptake`.`events`
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND 1
            AND toDate(event_time) >= {from:Date} - 1 AND toDate(event_time) <= {to:Date} + 1
            AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
    ) AS e
    LEFT ANY JOIN (-- The moves of a range: which events count for whom since which offset of the log.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM `uptake_internal`.`corrections`
        WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') - 86400 AND hour < toDateTime({to:Date}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k) AS m ON m.k = e.move_key
))
    WHERE actor_id = {user:String} AND actor_kind IN ('user', 'anonymous')
    UNION ALL
    SELECT event_time, toString(kind), toString(event), '', account_id, toString(role), toJSONString(traits), message_id, source_partition, source_offset
    FROM `uptake`.`events`
    WHERE app_id = {app:String} AND kind NOT IN ('track', 'page', 'screen', 'api_call') AND {user:String} IN (actor_id, user_id, anonymous_id, previous_id)
        AND toDate(event_time, {zone:String}) >= {from:Date} AND toDate(event_time, {zone:String}) < {to:Date}
)
ORDER BY event_time, source_partition, source_offset;

-- view user_traits

CREATE OR REPLACE VIEW `uptake`.`user_traits` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `trait` String COMMENT 'Name of the trait; empty: the user itself, also one without traits',
    `value` String COMMENT 'JSON text of its value',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Traits of each user as of its last calls, one row for each trait'
AS
WITH
    x -> if(startsWith(x, '['), JSONExtractArrayRaw(x), if(x = '', [], [x])) AS list,
    x -> concat('[', arrayStringConcat(x, ','), ']') AS text
SELECT
    app_id, user_id, trait,
    arrayFold(
        (had, step) -> multiIf(
            step.3 = '$set', step.4,
            step.3 IN ('$set_once', '$setOnce'), if(had = '', step.4, had),
            step.3 = '$add', toString(toFloat64OrZero(had) + toFloat64OrZero(step.4)),
            step.3 = '$append', text(arrayConcat(list(had), list(step.4))),
            step.3 = '$prepend', text(arrayConcat(list(step.4), list(had))),
            step.3 IN ('$union', '$postInsert'), text(arrayDistinct(arrayConcat(list(had), list(step.4)))),
            step.3 = '$preInsert', text(arrayDistinct(arrayConcat(arrayFilter(v -> NOT has(list(had), v), list(step.4)), list(had)))),
            step.3 = '$remove' AND had != '', text(arrayFilter(v -> NOT has(list(step.4), v), list(had))),
            ''),
        arrayFilter(step -> step.1 > deleted OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, user_id, trait, arraySort(groupArray((place, call_id, operator, value))) AS steps, max(place.1) AS said_at, any(deleted_place) AS deleted
    FROM
    (
        SELECT
            app_id, subject AS user_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, (said.1, said.2, said.3) AS place, said.4 AS value,
            maxIf(place, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_place
        FROM
        (
            SELECT app_id, subject, object, max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)) AS said
            FROM `uptake_internal`.`identity_facts` AS f
            WHERE fact = 'user'
            GROUP BY app_id, subject, object
        )
        WHERE trait NOT IN ('$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll')
    )
    GROUP BY app_id, user_id, trait
)
WHERE trait = '' OR value != '';

-- view users

CREATE OR REPLACE VIEW `uptake`.`users` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `traits` Map(String, String) COMMENT 'Traits by name: traits[''plan'']. Text as it is, other values as JSON text',
    `updated_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated a trait'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Users that calls named by identify, with their traits'
AS
SELECT
    app_id, user_id,
    mapFromArrays(groupArrayIf(trait, trait != ''), groupArrayIf(if(startsWith(value, '"'), JSONExtractString(value), value), trait != '')) AS traits,
    max(said_at) AS updated_at
FROM (SELECT * FROM `uptake`.`user_traits` ORDER BY trait)
GROUP BY app_id, user_id;

-- view who_looked

CREATE OR REPLACE VIEW `uptake`.`who_looked` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `looked_at` DateTime64(3, 'UTC') COMMENT 'When the page was opened; opened again within ten minutes it is not said again',
    `viewer` String COMMENT 'Who opened it: name from the sign-in, or holder of the token',
    `person_id` String COMMENT 'User or visitor whose page it was; empty for an account, and for a person who was erased since',
    `account_id` String COMMENT 'Account whose page, with its people, it was; empty for a person'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Who looked at which person, or at the people of which account, in the console, for 400 days'
AS
SELECT app_id, looked_at, any(l.viewer) AS viewer, min(l.person_id) AS person_id, any(l.account_id) AS account_id
FROM `uptake_internal`.`looks` AS l
GROUP BY app_id, looked_at, log_topic_id, log_offset
ORDER BY app_id, looked_at, log_offset;

-- view whole_hours

CREATE OR REPLACE VIEW `uptake`.`whole_hours` ON CLUSTER `main`
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `anonymous_id` String COMMENT 'The anonymous id that was linked',
    `hour` DateTime('UTC') COMMENT 'Hour in which a link of it begins or ends',
    `events` Int64 COMMENT 'How many of its events stayed with the link that was in force when the hour began',
    `corrected_at` DateTime64(3, 'UTC') COMMENT 'When the link was counted'
)
DEFINER = `uptake_views` SQL SECURITY DEFINER
COMMENT 'Hours of a shared device that count whole for one user although the device changed hands within them, since their events had expired by then. Kept for 60 days'
AS
SELECT app_id, JSONExtractString(reason, 'id') AS anonymous_id, toDateTime(JSONExtractUInt(reason, 'hour'), 'UTC') AS hour, JSONExtractInt(reason, 'events') AS events, corrected_at
FROM `uptake_internal`.`correction_plans`
WHERE chunk = 0 AND JSONExtractString(reason, 'kind') = 'whole_hour';

