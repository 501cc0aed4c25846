{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `day` Date COMMENT 'Day of the zone',
    `dau` UInt64 COMMENT 'People active on the day',
    `wau` UInt64 COMMENT 'People active in the 7 days up to it',
    `mau` UInt64 COMMENT 'People active in the 28 days up to it',
    `dau_mau` Nullable(Float64) COMMENT 'Stickiness: dau / mau',
    `dau_wau` Nullable(Float64) COMMENT 'dau / wau'
)
{{.Definer}}
COMMENT 'Rolling active people and stickiness of each day, also of days without activity. Parameters: app, from, to, zone.'
AS
-- An active day puts a person into the window from that day on, unless a day before
-- it still does, and out of it when the window ends, unless a later day keeps the
-- person in: starts minus ends, summed up.
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
                    FROM ({{template "counted_usage" (.Insight.With "from" "({from:Date} - 27)")}})
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
ORDER BY day
