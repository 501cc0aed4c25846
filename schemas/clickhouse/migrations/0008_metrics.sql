-- What metric events report: numbers of a period, of which the one that was said
-- last counts. metric_values holds what was said, keyed by whom the calls named
-- and not by whom they were counted for: a report that comes again replaces the
-- first one, whatever became known of its actor in between. It is a maximum, so
-- any order and any repeat of the same calls end alike.
--
-- What a number means is the newest catalog's word, looked up when it is read: a
-- metric that is declared late is right from its first report on.

{{.AddColumn "events" "metric" "String COMMENT 'metric only: JSON text of what it reports; empty: nothing that could be read' CODEC(ZSTD(1))"}};

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
    (e.event_time, e.received_at, e.source_offset, n.2, e.actor_id, toString(e.actor_kind), e.account_id) AS last
FROM {{.Local "events"}} AS e
ARRAY JOIN if(e.metric = '', [], JSONExtractKeysAndValues(e.metric, 'numbers', 'Float64')) AS n
WHERE e.metric != '';

{{.CreateTable "catalog_metrics"}}
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
ENGINE = {{.ReplacingMergeTree "catalog_version, removed"}}
ORDER BY (app_id, event)
COMMENT 'Metrics of the newest catalog of each app by the names of their events: use FINAL';

{{.CreateDistributed "catalog_metrics"}};

-- A row for each number of each period, as it was said last. at is the instant
-- that a gauge or a total is of: the last one of its period.
{{.CreatePlainView "metric_points"}} AS
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
        cityHash64(v.account_id, v.user_id, v.anonymous_id, v.dimensions) AS series, max(v.newest) AS said
    FROM
    (
        SELECT app_id, event, number, account_id, user_id, anonymous_id, dimensions, period_start, period_end, message_id, max(m.last) AS newest
        FROM {{.Table "metric_values"}} AS m
        GROUP BY app_id, event, number, account_id, user_id, anonymous_id, dimensions, period_start, period_end, message_id
    ) AS v
    LEFT JOIN
    (
        SELECT app_id, event, argMax(metric_id, catalog_version) AS id, argMax(toString(semantics), catalog_version) AS meaning, argMax(unit, catalog_version) AS of
        FROM {{.Table "catalog_metrics"}}
        GROUP BY app_id, event
        HAVING argMax(removed, catalog_version) = 0
    ) AS c ON c.app_id = v.app_id AND c.event = v.event
    GROUP BY v.app_id, metric_id, v.number, v.account_id, v.user_id, v.anonymous_id, v.dimensions, v.period_start, v.period_end, v.message_id
);

-- The same with what each point adds to a sum: a delta itself, a total what it
-- has grown by. A total that names where its period starts counts from there; of
-- others the first one counts in full, and one below the one before it has begun
-- anew. A gauge, and a metric that no catalog declares, adds nothing.
{{.CreatePlainView "metric_increases"}} AS
SELECT
    *,
    multiIf(semantics = 'delta', value, semantics != 'cumulative', NULL, place = 1 OR value < value_before, value, value - value_before) AS increase
FROM
(
    SELECT *, lagInFrame(value, 1, 0.) OVER w AS value_before, row_number() OVER w AS place
    FROM {{.Table "metric_points"}}
    WINDOW w AS (
        PARTITION BY app_id, metric_id, number, series, if(period_end > period_start, period_start, toDateTime64(0, 6, 'UTC'))
        ORDER BY period_end, said_at, received_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
);
{{range $grain := .Grains}}

-- value is the sum of deltas, the last gauge, or the growth of totals; NULL for a
-- metric that no catalog declares, whose points are in metric_points. A delta of
-- a longer period counts where it starts.
{{$.CreatePlainView (print "metric_" $grain.Name)}} AS
SELECT
    app_id, metric_id, number, meaning AS semantics, account_id, actor_id, actor_kind, dimensions, {{$grain.Column}},
    if(meaning = 'gauge', toNullable(last_value), total) AS value, points
FROM
(
    SELECT
        app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, any(i.semantics) AS meaning,
        {{$grain.Of "if(i.semantics = 'delta', i.period_start, i.at)"}} AS {{$grain.Column}},
        argMax(i.value, (i.at, i.said_at, i.received_at)) AS last_value, sumKahanOrNull(i.increase) AS total, count() AS points
    FROM {{$.Table "metric_increases"}} AS i
    GROUP BY app_id, metric_id, number, account_id, actor_id, actor_kind, dimensions, series, {{$grain.Column}}
);
{{end}}

-- The latest number of each series, on the account or the user that it is of.
{{.CreatePlainView "account_metrics"}} AS
SELECT app_id, account_id, metric_id, number, dimensions, semantics, unit, value, at, period_start, period_end
FROM {{.Table "metric_points"}}
WHERE actor_kind = 'account' AND account_id != ''
ORDER BY at DESC, said_at DESC, received_at DESC
LIMIT 1 BY app_id, account_id, metric_id, number, dimensions;

{{.CreatePlainView "user_metrics"}} AS
SELECT app_id, actor_id AS user_id, metric_id, number, dimensions, semantics, unit, value, at, period_start, period_end
FROM {{.Table "metric_points"}}
WHERE actor_kind = 'user'
ORDER BY at DESC, said_at DESC, received_at DESC
LIMIT 1 BY app_id, user_id, metric_id, number, dimensions;
