-- events and rejected_events against the counts, up to where each partition is counted.
-- Rows after that are ahead: their counts arrive within a block. Rejected records of
-- links are no events.
{{.Create}}
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
{{.Definer}}
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
    FROM {{.Table "audit_blocks"}} FINAL
    WHERE hour >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT e.app_id, toStartOfHour(toDateTime(e.received_at, 'UTC')), 0, 0, 0, 0, 0,
        toInt64(e.raw_offset >= p.raw_first AND e.source_offset < p.source_offset), 0, 0, toInt64(e.source_offset > p.source_offset)
    FROM {{.Table "events"}} AS e
    GLOBAL LEFT JOIN (SELECT source_topic_id, source_partition, min(raw_first) AS raw_first, max(source_offset) AS source_offset FROM {{.View "audit_positions"}} GROUP BY source_topic_id, source_partition) AS p
        ON e.source_topic_id = p.source_topic_id AND e.source_partition = p.source_partition
    WHERE e.received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT r.app_id, toStartOfHour(toDateTime(r.received_at, 'UTC')), 0, 0, 0, 0, 0,
        0, toInt64(r.raw_offset >= p.raw_first AND r.raw_offset < p.raw_next), 0, 0
    FROM {{.Table "rejected_events"}} AS r
    GLOBAL INNER JOIN (SELECT toInt64(source_partition) AS raw_partition, min(raw_first) AS raw_first, max(raw_next) AS raw_next FROM {{.View "audit_positions"}} GROUP BY source_partition) AS p
        ON r.raw_partition = p.raw_partition
    WHERE r.stage = 'enricher' AND r.field != 'links' AND r.received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
    UNION ALL
    SELECT app_id, toStartOfHour(toDateTime(received_at, 'UTC')), 0, 0, 0, 0, 0, 0, 0, 1, 0
    FROM {{.Table "rejected_events"}}
    WHERE stage = 'gateway' AND received_at >= toStartOfDay(now('UTC')) - INTERVAL 90 DAY
) AS c
GROUP BY app_id, hour
