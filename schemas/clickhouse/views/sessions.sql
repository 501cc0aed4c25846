{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user, or anonymous for a visitor who is not known to be a user',
    `actor_id` String COMMENT 'User id or anonymous id',
    `account_id` String COMMENT 'Account of the first event; empty: none is known',
    `session_number` UInt32 COMMENT 'Number of the session of the person in the range, from 1',
    `started_at` DateTime64(6, 'UTC') COMMENT 'First event',
    `ended_at` DateTime64(6, 'UTC') COMMENT 'Last event',
    `seconds` Float64 COMMENT 'Time from the first to the last event',
    `events` UInt64 COMMENT 'Number of events',
    `steps` Array(String) COMMENT 'Feature of each event in order; of unmapped ones event: and the name'
)
{{.Definer}}
COMMENT 'Sessions: events of a person without a gap longer than the defined one (30 minutes by default). A session that crosses an end of the range is cut there. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, account_id, session_number, started_at, ended_at, seconds, events, steps
FROM ({{template "sessions_query" .Insight}})
