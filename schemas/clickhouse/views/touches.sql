{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user or anonymous',
    `actor_id` String COMMENT 'Person',
    `touches` UInt64 COMMENT 'Events of the range that came with a campaign or a referrer',
    `first_at` DateTime64(6, 'UTC') COMMENT 'When the first of them was',
    `first_referrer` String COMMENT 'Host of its referrer; empty: none',
    `first_source` String COMMENT 'Source of its campaign (utm_source); empty: none',
    `first_medium` String COMMENT 'Medium of its campaign (utm_medium); empty: none',
    `first_campaign` String COMMENT 'Name of its campaign (utm_campaign); empty: none',
    `last_at` DateTime64(6, 'UTC') COMMENT 'When the last of them was',
    `last_referrer` String COMMENT 'Host of its referrer; empty: none',
    `last_source` String COMMENT 'Source of its campaign; empty: none',
    `last_medium` String COMMENT 'Medium of its campaign; empty: none',
    `last_campaign` String COMMENT 'Name of its campaign; empty: none'
)
{{.Definer}}
COMMENT 'First and last touch: the campaign and the referrer that brought each person, also as a visitor before sign-up. A referrer of the same host is none. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, n AS touches,
    first.1 AS first_at, first.2 AS first_referrer, first.3 AS first_source, first.4 AS first_medium, first.5 AS first_campaign,
    last.1 AS last_at, last.2 AS last_referrer, last.3 AS last_source, last.4 AS last_medium, last.5 AS last_campaign
FROM
(
    SELECT actor_kind, actor_id, count() AS n, argMin(touch, place) AS first, argMax(touch, place) AS last
    FROM
    (
        SELECT actor_kind, actor_id, (event_time, source_partition, source_offset) AS place,
            (event_time, toString(referrer), toString(utm_source), toString(utm_medium), toString(utm_campaign)) AS touch
        FROM ({{template "counted_events" ((.Insight.With "columns" "event_time, referrer, utm_source, utm_medium, utm_campaign, source_partition, source_offset").With "where" "(referrer != '' OR utm_source != '' OR utm_medium != '' OR utm_campaign != '')")}})
    )
    GROUP BY actor_kind, actor_id
)
ORDER BY actor_kind, actor_id
