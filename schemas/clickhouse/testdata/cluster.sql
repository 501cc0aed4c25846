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
        arrayFilter(step -> step.1 > deleted_at OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, account_id, trait, arraySort(groupArray((at, call_id, operator, value))) AS steps, max(at) AS said_at, any(deleted_at) AS deleted_at
    FROM
    (
        SELECT
            app_id, subject AS account_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, said.1 AS at, said.2 AS value,
            maxIf(said.1, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_at
        FROM
        (
            SELECT app_id, subject, object, max(f.last) AS said
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
        arrayFilter(step -> step.1 > deleted_at OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, user_id, trait, arraySort(groupArray((at, call_id, operator, value))) AS steps, max(at) AS said_at, any(deleted_at) AS deleted_at
    FROM
    (
        SELECT
            app_id, subject AS user_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, said.1 AS at, said.2 AS value,
            maxIf(said.1, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_at
        FROM
        (
            SELECT app_id, subject, object, max(f.last) AS said
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

