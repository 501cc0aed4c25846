-- The stored rollups: the base, by account and by user. All are signed sums, so
-- that a correction subtracts exactly what an event added; sum(events) is right at
-- any time, merged or not. A row that a correction emptied stays until a merge
-- removes it, and a key has a row in each part: people read the views of the same
-- names, which hide both. Each table has a dedup window: a repeated block that one
-- of them does not have yet is inserted there and skipped everywhere else.
--
-- There is no table by user and module, nor by user and product: their views sum
-- user_feature_daily. To fill two more tables cost as much as the three account
-- rollups together, and a query would only save the features of a module.
--
-- actor_kind is in every key with an actor: an anonymous id and a user id that
-- are the same string are two actors. account_source, user_id and anonymous_id
-- tell what a wrong link moved from what was counted for the same actor all
-- along, so that it can go back; they nearly always follow from the actor.
--
-- Corrections read usage_hourly by actor, many at once, of whom most have a few
-- rows: its granules are small, so that each costs 1,024 rows and not 8,192. The
-- primary key takes 40 bytes of memory for a thousand rows.

{{.CreateTable "usage_hourly"}}
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
ENGINE = {{.SummingMergeTree "events, quantity"}}
{{.PartitionByMonth "hour"}}
PRIMARY KEY (app_id, actor_id)
ORDER BY (app_id, actor_id, actor_kind, account_id, feature_id, hour, module_id, product_id, role, event, source_partition, account_source, user_id, anonymous_id)
SETTINGS {{.Window}}, index_granularity = 1024
COMMENT 'Stored rollup: usage by app, account, actor, feature, module, product, role, event name and hour';

{{.CreateDistributed "usage_hourly"}};

{{.CreateTable "account_feature_daily"}}
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
ENGINE = {{.SummingMergeTree "events, quantity"}}
{{.PartitionByMonth "day"}}
ORDER BY (app_id, account_id, feature_id, day, module_id, product_id)
SETTINGS {{.Window}}
COMMENT 'Stored rollup: usage of a feature by an account in a day';

{{.CreateDistributed "account_feature_daily"}};

{{.CreateTable "account_module_daily"}}
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `module_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `product_id` LowCardinality(String),
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = {{.SummingMergeTree "events, quantity"}}
{{.PartitionByMonth "day"}}
ORDER BY (app_id, account_id, module_id, day, product_id)
SETTINGS {{.Window}}
COMMENT 'Stored rollup: usage of a module by an account in a day';

{{.CreateDistributed "account_module_daily"}};

{{.CreateTable "account_product_daily"}}
(
    `app_id` LowCardinality(String),
    `account_id` String COMMENT 'Empty: no account is known',
    `product_id` LowCardinality(String) COMMENT 'Empty: unmapped',
    `day` Date COMMENT 'UTC day of event_time',
    `events` Int64 COMMENT 'How many events: signed, sum it',
    `quantity` Int64 COMMENT 'How many actions they stand for: signed, sum it'
)
ENGINE = {{.SummingMergeTree "events, quantity"}}
{{.PartitionByMonth "day"}}
ORDER BY (app_id, account_id, product_id, day)
SETTINGS {{.Window}}
COMMENT 'Stored rollup: usage of a product by an account in a day';

{{.CreateDistributed "account_product_daily"}};

{{.CreateTable "user_feature_daily"}}
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
ENGINE = {{.SummingMergeTree "events, quantity"}}
{{.PartitionByMonth "day"}}
PRIMARY KEY (app_id, account_id, actor_id)
ORDER BY (app_id, account_id, actor_id, actor_kind, feature_id, day, role, module_id, product_id)
SETTINGS {{.Window}}
COMMENT 'Stored rollup: usage of a feature by a user in a day';

{{.CreateDistributed "user_feature_daily"}};

-- The views over usage_hourly come first: they exist before anything fills it.

{{.CreateView "account_feature_daily_view" "account_feature_daily"}} AS
SELECT app_id, account_id, feature_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM {{.Local "usage_hourly"}};

{{.CreateView "account_module_daily_view" "account_module_daily"}} AS
SELECT app_id, account_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM {{.Local "usage_hourly"}};

{{.CreateView "account_product_daily_view" "account_product_daily"}} AS
SELECT app_id, account_id, product_id, toDate(hour) AS day, events, quantity
FROM {{.Local "usage_hourly"}};

{{.CreateView "user_feature_daily_view" "user_feature_daily"}} AS
SELECT app_id, account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, toDate(hour) AS day, events, quantity
FROM {{.Local "usage_hourly"}};

-- A row for each event, without GROUP BY: the table sums the rows of a block as it
-- writes them, a block of a few seconds has few rows of one key, and one block in
-- gives one block out in the same order.
{{.CreateView "usage_hourly_from_events" "usage_hourly"}} AS
SELECT
    e.app_id AS app_id, e.account_id AS account_id, e.account_source AS account_source, e.actor_id AS actor_id, e.actor_kind AS actor_kind,
    if(e.user_id != '', e.user_id, e.linked_user_id) AS user_id, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id,
    e.feature_id AS feature_id, e.module_id AS module_id, e.product_id AS product_id, e.role AS role, e.event AS event,
    toStartOfHour(e.event_time) AS hour, e.source_partition AS source_partition, toInt64(1) AS events, e.quantity AS quantity
FROM {{.Local "events"}} AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call');

{{.CreateView "usage_hourly_from_corrections" "usage_hourly"}} AS
SELECT
    app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event,
    hour, source_partition, events, quantity
FROM {{.Local "corrections"}};
