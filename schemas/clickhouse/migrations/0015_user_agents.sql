-- Which ids came with which user agents: definitions exclude bots and monitoring by
-- user agent, and no rollup has it. A row says the same however often it is written.
-- The user agent comes first in the key, so that those of a list are found in few
-- values of a dictionary, and the ids that came with them lie together.

{{.CreateTable "user_agents"}}
(
    `app_id` LowCardinality(String),
    `user_agent` LowCardinality(String) COMMENT 'As the event has it',
    `anonymous_id` String COMMENT 'Anonymous id of events that named no user',
    `user_id` String COMMENT 'User that the event named',
    `actor_kind` LowCardinality(String) COMMENT 'user or anonymous, as counted on arrival',
    `actor_id` String COMMENT 'Who did it, as counted on arrival',
    `last_seen` SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'Latest event time: max it'
)
ENGINE = {{.AggregatingMergeTree}}
ORDER BY (app_id, user_agent, anonymous_id, user_id, actor_kind, actor_id)
SETTINGS {{.Window}}
COMMENT 'User agents that users and anonymous ids came with';

{{.CreateDistributed "user_agents"}};

{{.CreateView "user_agents_from_events" "user_agents"}} AS
SELECT
    e.app_id AS app_id, toLowCardinality(e.user_agent) AS user_agent, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id, e.user_id AS user_id,
    e.actor_kind AS actor_kind, e.actor_id AS actor_id, max(e.event_time) AS last_seen
FROM {{.Local "events"}} AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call') AND e.user_agent != '' AND (e.user_id != '' OR e.anonymous_id != '')
GROUP BY app_id, user_agent, anonymous_id, user_id, actor_kind, actor_id;

-- Events from before the view. On a cluster each shard has its own: `rollup-writer
-- rebuild` writes them.
{{if not .Form.Cluster}}INSERT INTO {{.Local "user_agents"}} (app_id, user_agent, anonymous_id, user_id, actor_kind, actor_id, last_seen)
SELECT
    e.app_id AS app_id, toLowCardinality(e.user_agent) AS user_agent, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id, e.user_id AS user_id,
    e.actor_kind AS actor_kind, e.actor_id AS actor_id, max(e.event_time) AS last_seen
FROM {{.Local "events"}} AS e
WHERE e.kind IN ('track', 'page', 'screen', 'api_call') AND e.user_agent != '' AND (e.user_id != '' OR e.anonymous_id != '')
GROUP BY app_id, user_agent, anonymous_id, user_id, actor_kind, actor_id;
{{end}}
