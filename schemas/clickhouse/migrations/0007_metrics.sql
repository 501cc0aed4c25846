-- What metric events report: numbers of a period, of which the one stated last
-- counts: by the timestamp that it was sent with, whatever became of that in
-- event_time, and of those of one request the last. metric_values is keyed by the ids that the calls named and not by whom
-- they were counted for: a report that comes again replaces the first one,
-- whatever became known of its actor in between. It is a maximum, so that any
-- order and any repeat of the same calls give the same result.
--
-- What a number means is defined by the newest catalog and looked up when it is
-- read: a metric that is declared late is right from its first report on.

{{.CreateTable "metric_values"}}
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
ENGINE = {{.AggregatingMergeTree}}
ORDER BY (app_id, event, account_id, user_id, anonymous_id, number, dimensions, period_start, period_end, message_id)
SETTINGS {{.Window}}
COMMENT 'What metric events said, for metric_points and the views over it';

{{.CreateDistributed "metric_values"}};

{{.CreateView "metric_values_from_events" "metric_values"}} AS
WITH JSONHas(e.metric, 'period') AS named
SELECT
    e.app_id AS app_id, e.event AS event, n.1 AS number, e.user_id AS user_id, e.anonymous_id AS anonymous_id,
    if(e.account_source = 'event', e.account_id, '') AS account_id, JSONExtractString(e.metric, 'dimensions') AS dimensions,
    if(named, fromUnixTimestamp64Micro(JSONExtractInt(e.metric, 'period', 1), 'UTC'), e.event_time) AS period_start,
    if(named, fromUnixTimestamp64Micro(JSONExtractInt(e.metric, 'period', 2), 'UTC'), e.event_time) AS period_end,
    if(named, '', e.message_id) AS message_id,
    (ifNull(e.timestamp, e.event_time), e.received_at, e.source_offset, n.2, e.actor_id, toString(e.actor_kind), e.account_id) AS last
FROM {{.Local "events"}} AS e
ARRAY JOIN if(e.metric = '', [], JSONExtractKeysAndValues(e.metric, 'numbers', 'Float64')) AS n
WHERE e.metric != '';
