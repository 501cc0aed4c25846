-- What became of what the gateways acked: accepted = stored + duplicates +
-- rejected + opted_out + in flight, per app and hour of receipt.
--
-- The enrichers' transactions say what they took from raw and what they did with
-- each record; a block of enriched that holds such counts is a row here for each
-- app and hour. The row's key is the place in the log, so whatever is written
-- again replaces itself, with or without its token. All rows of a block have the
-- same counted_at: they expire together, also those of an event that was sent
-- again a year after its receipt.
{{.CreateTable "audit_blocks"}}
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
ENGINE = {{.ReplacingMergeTree ""}}
{{.PartitionByMonth "counted_at"}}
ORDER BY (app_id, hour, raw_topic_id, source_topic_id, source_partition, source_offset)
TTL counted_at + INTERVAL 100 DAY
SETTINGS {{.Window}}
COMMENT 'What enrichers counted, by block of the log: see audit_counts and audit_differences';

{{.CreateDistributed "audit_blocks"}};

-- How far each partition of the log is counted: what is in events and
-- rejected_events up to there must agree with the counts, at any moment.
{{.CreatePlainView "audit_positions"}} AS
SELECT raw_topic_id, source_topic_id, source_partition, min(raw_first) AS raw_first, max(raw_next) AS raw_next, max(source_offset) AS source_offset
FROM {{.Table "audit_blocks"}}
WHERE raw_topic_id != ''
GROUP BY raw_topic_id, source_topic_id, source_partition
COMMENT 'From and up to where each partition of the log is counted';

-- Nothing was ever written into the table of this name.
DROP TABLE IF EXISTS {{.Table "audit_counts"}}{{.OnCluster}} SYNC;

{{.DropLocal "audit_counts"}};

{{.CreatePlainView "audit_counts"}} AS
SELECT app_id, 'enricher' AS stage, tupleElement(count, 1) AS counter, hour, source_partition, tupleElement(count, 2) AS value
FROM (
    SELECT app_id, hour, source_partition,
        arrayJoin([('accepted', accepted), ('stored', stored), ('duplicates', duplicates), ('rejected', rejected), ('opted_out', opted_out)]) AS count
    FROM {{.Table "audit_blocks"}} FINAL)
WHERE value != 0
UNION ALL
SELECT app_id, 'gateway', 'rejected', toStartOfHour(toDateTime(received_at, 'UTC')), source_partition, toInt64(1)
FROM {{.Table "rejected_events"}} WHERE stage = 'gateway'
UNION ALL
SELECT app_id, 'rollup-writer', 'rejected', toStartOfHour(toDateTime(received_at, 'UTC')), toInt32(raw_partition), toInt64(1)
FROM {{.Table "rejected_events"}} WHERE stage = 'enricher' AND field != 'links'
UNION ALL
SELECT app_id, 'rollup-writer', 'stored', toStartOfHour(toDateTime(received_at, 'UTC')), source_partition, toInt64(1)
FROM {{.Table "events"}}
COMMENT 'What each stage counted by hour of receipt: use sum(value). enricher: as its transactions say; rollup-writer: the rows that are there';

-- events and rejected_events against the counts, up to where each partition is
-- counted. Rows beyond that are ahead: their counts come within a block. Records
-- of links that were rejected are no events.
{{.CreatePlainView "audit_differences"}} AS
SELECT app_id, hour,
    sum(c.accepted) AS accepted, sum(c.stored) AS stored, sum(c.duplicates) AS duplicates, sum(c.rejected) AS rejected, sum(c.opted_out) AS opted_out,
    sum(c.event_rows) AS event_rows, sum(c.rejected_rows) AS rejected_rows, sum(c.refused) AS refused, sum(c.ahead) AS ahead,
    event_rows - stored AS stored_difference,
    rejected_rows - rejected AS rejected_difference,
    accepted - event_rows - duplicates - rejected_rows - opted_out AS difference
FROM (
    SELECT app_id, hour, accepted, stored, duplicates, rejected, opted_out,
        toInt64(0) AS event_rows, toInt64(0) AS rejected_rows, toInt64(0) AS refused, toInt64(0) AS ahead
    FROM {{.Table "audit_blocks"}} FINAL
    WHERE hour >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT e.app_id, toStartOfHour(toDateTime(e.received_at, 'UTC')), 0, 0, 0, 0, 0,
        toInt64(e.raw_offset >= p.raw_first AND e.source_offset < p.source_offset), 0, 0, toInt64(e.source_offset > p.source_offset)
    FROM {{.Table "events"}} AS e
    GLOBAL LEFT JOIN (SELECT source_topic_id, source_partition, min(raw_first) AS raw_first, max(source_offset) AS source_offset FROM {{.Table "audit_positions"}} GROUP BY source_topic_id, source_partition) AS p
        ON e.source_topic_id = p.source_topic_id AND e.source_partition = p.source_partition
    WHERE e.received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT r.app_id, toStartOfHour(toDateTime(r.received_at, 'UTC')), 0, 0, 0, 0, 0,
        0, toInt64(r.raw_offset >= p.raw_first AND r.raw_offset < p.raw_next), 0, 0
    FROM {{.Table "rejected_events"}} AS r
    GLOBAL INNER JOIN (SELECT toInt64(source_partition) AS raw_partition, min(raw_first) AS raw_first, max(raw_next) AS raw_next FROM {{.Table "audit_positions"}} GROUP BY source_partition) AS p
        ON r.raw_partition = p.raw_partition
    WHERE r.stage = 'enricher' AND r.field != 'links' AND r.received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT app_id, toStartOfHour(toDateTime(received_at, 'UTC')), 0, 0, 0, 0, 0, 0, 0, 1, 0
    FROM {{.Table "rejected_events"}}
    WHERE stage = 'gateway' AND received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
) AS c
GROUP BY app_id, hour
COMMENT 'Of the last 90 days, by app and hour of receipt: accepted = event_rows + duplicates + rejected_rows + opted_out, else difference says how many are missing. refused: rejected by the gateway, which did not accept them';

-- What rollup-writer replay-rejected sent again. It names no message: who is
-- erased from rejected_events is not named here either.
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
COMMENT 'Rejected events that were mended and sent again';

{{.CreateDistributed "replayed_events"}};
