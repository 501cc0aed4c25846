{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `milestone_id` String COMMENT 'Id of the step',
    `description` String COMMENT 'What it says, in words',
    `owner` String COMMENT 'Who cares',
    `version` UInt32 COMMENT 'Version of the definition',
    `level` LowCardinality(String) COMMENT 'account or user',
    `subject_id` String COMMENT 'Account or user',
    `done` Int64 COMMENT 'How often it was done so far',
    `times` UInt64 COMMENT 'How often it takes',
    `reached` UInt8 COMMENT '1: reached; 0: still open',
    `reached_hour` Nullable(DateTime('UTC')) COMMENT 'UTC hour in which it was reached first'
)
{{.Definer}}
COMMENT 'Milestones of every account or user that was ever active: reached and when, or still open; as of now. Parameters: app.'
AS
WITH
    {{template "settings" .Insight}},
    steps AS (
        SELECT key AS milestone_id, toString(match) AS level, JSONExtractString(value, 'description') AS description, JSONExtractString(value, 'owner') AS owner,
            toUInt32(JSONExtractUInt(value, 'version')) AS version, JSONExtractUInt(value, 'times') AS times, JSONExtract(value, 'of', 'Array(Tuple(match String, value String))') AS of
        FROM ({{template "definitions" .Insight}})
        WHERE use = 'milestone'
    ),
    hours AS (
        SELECT s.milestone_id AS milestone_id, if(s.level = 'user', u.actor_id, u.account_id) AS subject_id, u.hour AS hour, any(s.times) AS times,
            sum(if(arrayExists(o -> multiIf(o.1 = 'feature', u.feature_id = o.2, o.1 = 'module', u.module_id = o.2, o.1 = 'product', u.product_id = o.2, u.event = o.2), s.of), u.events, 0)) AS n, sum(u.events) AS net
        FROM {{.Table "usage_hourly"}} AS u
        CROSS JOIN steps AS s
        WHERE u.app_id = {app:String} AND if(s.level = 'user', u.actor_kind = 'user' AND u.actor_id NOT IN excluded_users, u.account_id != '' AND NOT (u.actor_kind = 'user' AND u.actor_id IN excluded_users))
            AND u.account_id NOT IN excluded_accounts AND u.role NOT IN excluded_roles
            AND (empty(excluded_agents) OR (toString(u.actor_kind), u.actor_id) GLOBAL NOT IN ({{template "bots" .Insight}}))
        GROUP BY milestone_id, subject_id, hour
    ),
    reached AS (
        SELECT milestone_id, subject_id, arraySort(x -> x.1, groupArray((hour, n))) AS list, arrayCumSum(x -> x.2, list) AS sums,
            sum(n) AS done, any(times) AS needed, arrayFirstIndex(x -> x >= needed, sums) AS i
        FROM hours
        GROUP BY milestone_id, subject_id
        HAVING sum(net) > 0
    )
SELECT toLowCardinality({app:String}) AS app_id, s.milestone_id AS milestone_id, s.description AS description, s.owner AS owner, s.version AS version, s.level AS level, r.subject_id AS subject_id,
    r.done AS done, s.times AS times, toUInt8(r.i > 0) AS reached, if(r.i > 0, toNullable(r.list[r.i].1), NULL) AS reached_hour
FROM reached AS r
INNER JOIN steps AS s ON s.milestone_id = r.milestone_id
ORDER BY milestone_id, subject_id
