-- 0001_events

CREATE TABLE IF NOT EXISTS `uptake`.`events_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, toDate(event_time), account_id, feature_id, event_time)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800, min_bytes_for_wide_part = 67108864
COMMENT 'One row per event, as it was when it was counted';

CREATE TABLE IF NOT EXISTS `uptake`.`events` ON CLUSTER `main` AS `uptake`.`events_local` ENGINE = Distributed(`main`, `uptake`, `events_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`corrections_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (app_id, source_topic_id, source_partition, source_offset)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Signed rows that moved what was counted from one attribution to another';

CREATE TABLE IF NOT EXISTS `uptake`.`corrections` ON CLUSTER `main` AS `uptake`.`corrections_local` ENGINE = Distributed(`main`, `uptake`, `corrections_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`correction_plans_local` ON CLUSTER `main`
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
    `row` UInt32
)
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(corrected_at)
ORDER BY (source_topic_id, source_partition, source_offset, chunk, row)
TTL toDateTime(corrected_at) + INTERVAL 60 DAY
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'What corrections insert, for rollup-writer itself';

CREATE TABLE IF NOT EXISTS `uptake`.`correction_plans` ON CLUSTER `main` AS `uptake`.`correction_plans_local` ENGINE = Distributed(`main`, `uptake`, `correction_plans_local`);

-- 0002_usage_rollups

CREATE TABLE IF NOT EXISTS `uptake`.`usage_hourly_local` ON CLUSTER `main`
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
    `events` Int64 COMMENT 'How many events: sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(hour)
PRIMARY KEY (app_id, actor_id)
ORDER BY (app_id, actor_id, actor_kind, account_id, feature_id, hour, module_id, product_id, role, event, source_partition, account_source, user_id, anonymous_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Usage by app, account, actor, feature, module, product, role, event name and hour: use sum(events), sum(quantity)';

CREATE TABLE IF NOT EXISTS `uptake`.`usage_hourly` ON CLUSTER `main` AS `uptake`.`usage_hourly_local` ENGINE = Distributed(`main`, `uptake`, `usage_hourly_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`account_feature_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `feature_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `module_id` LowCardinality(String),
    `product_id` LowCardinality(String),
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
ORDER BY (app_id, account_id, feature_id, day, module_id, product_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Usage of a feature by an account in a day: use sum(events), sum(quantity)';

CREATE TABLE IF NOT EXISTS `uptake`.`account_feature_daily` ON CLUSTER `main` AS `uptake`.`account_feature_daily_local` ENGINE = Distributed(`main`, `uptake`, `account_feature_daily_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`account_module_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `module_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `product_id` LowCardinality(String),
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
ORDER BY (app_id, account_id, module_id, day, product_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Usage of a module by an account in a day: use sum(events), sum(quantity)';

CREATE TABLE IF NOT EXISTS `uptake`.`account_module_daily` ON CLUSTER `main` AS `uptake`.`account_module_daily_local` ENGINE = Distributed(`main`, `uptake`, `account_module_daily_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`account_product_daily_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `product_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
ORDER BY (app_id, account_id, product_id, day)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Usage of a product by an account in a day: use sum(events), sum(quantity)';

CREATE TABLE IF NOT EXISTS `uptake`.`account_product_daily` ON CLUSTER `main` AS `uptake`.`account_product_daily_local` ENGINE = Distributed(`main`, `uptake`, `account_product_daily_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`user_feature_daily_local` ON CLUSTER `main`
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
    `events` Int64 COMMENT 'How many events: sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: sum it'
)
ENGINE = ReplicatedSummingMergeTree((events, quantity))
PARTITION BY toYYYYMM(day)
PRIMARY KEY (app_id, account_id, actor_id)
ORDER BY (app_id, account_id, actor_id, actor_kind, feature_id, day, role, module_id, product_id)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Usage of a feature by a user in a day: use sum(events), sum(quantity), uniqExact(actor_id)';

CREATE TABLE IF NOT EXISTS `uptake`.`user_feature_daily` ON CLUSTER `main` AS `uptake`.`user_feature_daily_local` ENGINE = Distributed(`main`, `uptake`, `user_feature_daily_local`);

CREATE VIEW IF NOT EXISTS `uptake`.`user_module_daily` ON CLUSTER `main` AS
SELECT app_id, account_id, actor_id, actor_kind, role, module_id, product_id, day, events, quantity
FROM `uptake`.`user_feature_daily`
COMMENT 'Usage of a module by a user in a day: use sum(events), sum(quantity), uniqExact(actor_id)';

CREATE VIEW IF NOT EXISTS `uptake`.`user_product_daily` ON CLUSTER `main` AS
SELECT app_id, account_id, actor_id, actor_kind, role, product_id, day, events, quantity
FROM `uptake`.`user_feature_daily`
COMMENT 'Usage of a product by a user in a day: use sum(events), sum(quantity), uniqExact(actor_id)';

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake`.`account_feature_daily_view` ON CLUSTER `main` TO `uptake`.`account_feature_daily_local` AS
SELECT app_id, account_id, feature_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake`.`account_module_daily_view` ON CLUSTER `main` TO `uptake`.`account_module_daily_local` AS
SELECT app_id, account_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake`.`account_product_daily_view` ON CLUSTER `main` TO `uptake`.`account_product_daily_local` AS
SELECT app_id, account_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake`.`user_feature_daily_view` ON CLUSTER `main` TO `uptake`.`user_feature_daily_local` AS
SELECT app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM `uptake`.`usage_hourly_local`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake`.`usage_hourly_from_events` ON CLUSTER `main` TO `uptake`.`usage_hourly_local` AS
SELECT
    e.app_id AS app_id, e.account_id AS account_id, e.account_source AS account_source, e.actor_id AS actor_id, e.actor_kind AS actor_kind,
    if(e.user_id != '', e.user_id, e.linked_user_id) AS user_id, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id,
    e.feature_id AS feature_id, e.module_id AS module_id, e.product_id AS product_id, e.role AS role, e.event AS event,
    toStartOfHour(e.event_time) AS hour, e.source_partition AS source_partition, toInt64(1) AS events, e.quantity AS quantity
FROM `uptake`.`events_local` AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call');

CREATE MATERIALIZED VIEW IF NOT EXISTS `uptake`.`usage_hourly_from_corrections` ON CLUSTER `main` TO `uptake`.`usage_hourly_local` AS
SELECT
    app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event,
    hour, source_partition, events, quantity
FROM `uptake`.`corrections_local`;

-- 0003_rejected_events

CREATE TABLE IF NOT EXISTS `uptake`.`rejected_events_local` ON CLUSTER `main`
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
ENGINE = ReplicatedMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (app_id, code, received_at)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'Events that could not be used, and why';

CREATE TABLE IF NOT EXISTS `uptake`.`rejected_events` ON CLUSTER `main` AS `uptake`.`rejected_events_local` ENGINE = Distributed(`main`, `uptake`, `rejected_events_local`);

-- 0004_catalog_features

CREATE TABLE IF NOT EXISTS `uptake`.`catalog_features_local` ON CLUSTER `main`
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
COMMENT 'Features, modules and products of the newest catalog of each app: use FINAL';

CREATE TABLE IF NOT EXISTS `uptake`.`catalog_features` ON CLUSTER `main` AS `uptake`.`catalog_features_local` ENGINE = Distributed(`main`, `uptake`, `catalog_features_local`);

CREATE TABLE IF NOT EXISTS `uptake`.`catalog_features_history_local` ON CLUSTER `main`
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
COMMENT 'Features of every version of the catalog: use FINAL';

CREATE TABLE IF NOT EXISTS `uptake`.`catalog_features_history` ON CLUSTER `main` AS `uptake`.`catalog_features_history_local` ENGINE = Distributed(`main`, `uptake`, `catalog_features_history_local`);

-- 0005_audit_counts

CREATE TABLE IF NOT EXISTS `uptake`.`audit_counts_local` ON CLUSTER `main`
(
    `app_id` LowCardinality(String),
    `stage` LowCardinality(String) COMMENT 'gateway, enricher or rollup-writer',
    `counter` LowCardinality(String) COMMENT 'accepted, stored, duplicates, rejected or opted_out',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of received_at',
    `source_partition` Int32,
    `value` Int64 COMMENT 'Events: sum it'
)
ENGINE = ReplicatedSummingMergeTree((value))
PARTITION BY toYYYYMM(hour)
ORDER BY (app_id, hour, stage, counter, source_partition)
SETTINGS replicated_deduplication_window = 200000, replicated_deduplication_window_seconds = 604800
COMMENT 'What each stage counted by hour of receipt: use sum(value)';

CREATE TABLE IF NOT EXISTS `uptake`.`audit_counts` ON CLUSTER `main` AS `uptake`.`audit_counts_local` ENGINE = Distributed(`main`, `uptake`, `audit_counts_local`);

