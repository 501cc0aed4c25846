{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `stage` String COMMENT 'gateway, enricher or rollup-writer',
    `counter` String COMMENT 'accepted, stored, duplicates, rejected or opted_out',
    `hour` DateTime('UTC') COMMENT 'Start of the hour of received_at',
    `source_partition` Int32 COMMENT 'Partition of the log',
    `value` Int64 COMMENT 'Number of events'
)
{{.Definer}}
COMMENT 'What each stage counted, by hour of receipt. enricher: as its transactions state; gateway and rollup-writer: the rows that are stored'
AS
SELECT app_id, stage, counter, hour, source_partition, sum(c.value) AS value
FROM
(
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
) AS c
GROUP BY app_id, stage, counter, hour, source_partition
