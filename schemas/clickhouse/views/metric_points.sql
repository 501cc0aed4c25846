{{.Create}}
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
{{.Definer}}
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
            FROM {{.Table "metric_values"}} AS m
            GROUP BY app_id, event, number, account_id, user_id, anonymous_id, dimensions, period_start, period_end, message_id
        ) AS n
        LEFT JOIN
        (
            SELECT app_id, id, argMin(user_id, (since, user_id)) AS user_id
            FROM {{.View "identities"}}
            WHERE id_kind = 'anonymous'
            GROUP BY app_id, id
        ) AS l ON l.app_id = n.app_id AND l.id = tupleElement(n.newest, 'actor_id')
        LEFT JOIN {{.View "user_roots"}} AS r ON r.app_id = n.app_id
            AND r.user_id = if(tupleElement(n.newest, 'actor_kind') = 'user', tupleElement(n.newest, 'actor_id'), l.user_id)
    ) AS v
    LEFT JOIN
    (
        SELECT app_id, event, argMax(metric_id, catalog_version) AS id, argMax(toString(semantics), catalog_version) AS meaning, argMax(unit, catalog_version) AS of
        FROM {{.Table "catalog_metrics"}}
        GROUP BY app_id, event
        HAVING argMax(removed, catalog_version) = 0
    ) AS c ON c.app_id = v.app_id AND c.event = v.event
    GROUP BY v.app_id, metric_id, v.number, v.account_id, v.kind, v.who, v.dimensions, v.period_start, v.period_end, v.message_id
)
