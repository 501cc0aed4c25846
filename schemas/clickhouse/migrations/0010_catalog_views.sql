-- What the catalog does not have, what the columns do not have, and the catalog
-- to look things up in.

-- A name that a later version takes over is gone from here, with its history.
{{.CreatePlainView "unmapped_events"}} AS
SELECT app_id, event, sum(n) AS events, sum(q) AS quantity, min(hour) AS first_seen, max(hour) AS last_seen
FROM
(
    SELECT app_id, toString(u.event) AS event, hour, sum(u.events) AS n, sum(u.quantity) AS q
    FROM {{.Table "usage_hourly"}} AS u
    WHERE feature_id = ''
    GROUP BY app_id, event, hour
    HAVING n != 0 OR q != 0
)
GROUP BY app_id, event;

-- The newest five of each: what they bring says which feature they are.
{{.CreatePlainView "unmapped_samples"}} AS
SELECT app_id, event, kind, event_time, account_id, actor_id, properties, context, protocol, library, message_id
FROM {{.Table "events"}}
WHERE feature_id = '' AND kind IN ('track', 'page', 'screen', 'api_call')
    AND (app_id, toString(event)) IN (SELECT app_id, event FROM {{.Table "unmapped_events"}})
ORDER BY event_time DESC
LIMIT 5 BY app_id, event;

-- The key paths of which values had no place in the columns. # and a number at
-- the end of a path tell several values of one event apart, and are left out.
{{.CreatePlainView "metadata_conflicts"}} AS
SELECT
    app_id, path, count() AS events, min(received_at) AS first_seen, max(received_at) AS last_seen,
    argMax(value, received_at) AS last_value, groupUniqArray(5)(event) AS event_names
FROM
(
    SELECT app_id, toString(e.event) AS event, received_at, replaceRegexpOne(kept.1, '#[0-9]+$', '') AS path, kept.2 AS value
    FROM {{.Table "events"}} AS e
    ARRAY JOIN JSONExtractKeysAndValuesRaw(conflicts) AS kept
    WHERE conflicts != ''
)
GROUP BY app_id, path;

{{.CreateDictionary "catalog_features_dict"}}
(
    `app_id` String,
    `feature_id` String,
    `feature_name` String,
    `module_id` String,
    `module_name` String,
    `product_id` String,
    `product_name` String,
    `owner` String,
    `purpose` String,
    `kind` String,
    `status` String,
    `catalog_version` Int64
)
PRIMARY KEY app_id, feature_id
SOURCE(CLICKHOUSE(QUERY 'SELECT app_id, feature_id, feature_name, module_id, module_name, product_id, product_name, owner, purpose, kind, status, catalog_version FROM {{.Table "catalog_features"}} FINAL WHERE removed = 0'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 60 MAX 120);
